from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.integration.conftest import (
    anyio_backend as anyio_backend,  # noqa: PLC0414  # pytest finds it here
    home as home,  # noqa: PLC0414
)

from .running import Node, Server, node


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its servers have to say."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Server):
                report.sections.append((f"log of {name}", value.log.read_text("utf-8")[-4000:]))
    return report


@pytest.fixture(scope="session")
def oidc_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node("oidc-provider.mjs", tmp_path_factory.mktemp("oidc-provider")) as server:
        yield server
