from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import (
    anyio_backend as anyio_backend,  # noqa: PLC0414  # pytest finds it here
    home as home,  # noqa: PLC0414
)

from .running import Node, node


@pytest.fixture(scope="session")
def oidc_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node("oidc-provider.mjs", tmp_path_factory.mktemp("oidc-provider")) as server:
        yield server
