"""
Every figure of the pure core, stated once more: a limit that a test imports would be right whatever
it is.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import flyteauth._sansio
from flyteauth._sansio.flow import Backoff

Limit = int | float | Backoff

LIMITS: dict[str, tuple[Limit, pytest.MarkDecorator | tuple[()]]] = {
    "authorization_code.ATTEMPTS": (3, pytest.mark.req("COD-04")),
    "authorization_code.URI_MAX": (8192, pytest.mark.req("NET-01")),
    "authorization_code.ENTROPY": (96, pytest.mark.req("RND-01", "RND-02")),
    "command.OUTPUT_MAX": (65536, pytest.mark.req("NET-01", "BRR-14")),
    "command._LINES": (3, ()),
    "command._LINE_MAX": (160, pytest.mark.req("NET-01")),
    "command._MILLISECONDS": (300_000_000_000.0, ()),
    "device_authorization.BACKOFF_MAX": (60.0, pytest.mark.req("DEV-07")),
    "device_authorization.LIFETIME_MAX": (1800.0, pytest.mark.req("DEV-09")),
    "device_authorization.USER_CODE_MAX": (64, pytest.mark.req("NET-01")),
    "discovery.BACKOFF": (
        Backoff(attempts=3, first=0.5, cap=30.0, retry_after_max=120.0, lost_replies=1),
        pytest.mark.req("NET-02"),
    ),
    "discovery.REDIRECTS_MAX": (3, pytest.mark.req("META-08")),
    "errors.MESSAGE_MAX": (2000, pytest.mark.req("ERR-01")),
    "errors.TEXT_MAX": (300, pytest.mark.req("NET-01")),
    "exchanges.BACKOFF": (
        Backoff(attempts=3, first=0.5, cap=30.0, retry_after_max=10.0, lost_replies=1),
        pytest.mark.req("NET-02", "REF-11"),
    ),
    "http.BODY_MAX": (1_048_576, pytest.mark.req("NET-01", "TOK-02")),
    "http.RETRY_AFTER_MAX": (120.0, pytest.mark.req("NET-02")),
    "http.YEAR": (31_536_000.0, pytest.mark.req("NET-02")),
    "id_token.SKEW": (60.0, ()),
    "keyring_layouts._LATEST": (253_402_300_800.0, ()),
    "record.VERSION": (1, ()),
    "redirect.HEAD_MAX": (65536, pytest.mark.req("NET-01", "CBK-18")),
    "redirect.TARGET_MAX": (32768, pytest.mark.req("NET-01", "CBK-18")),
    "redirect._CODE_MIN": (16, pytest.mark.req("CBK-21")),
    "renewal.BREAKER": (30.0, pytest.mark.req("BRR-07")),
    "renewal.JITTER": (0.25, pytest.mark.req("CLK-04")),
    "renewal.LEEWAY": (60.0, pytest.mark.req("CLK-04")),
    "renewal.LEEWAY_SHARE": (0.2, pytest.mark.req("CLK-04")),
    "renewal.SKEW": (60.0, pytest.mark.req("CLK-03")),
}


def figures() -> Iterator[tuple[str, Limit]]:
    """What the modules themselves declare, by the name of the module."""
    for found in pkgutil.iter_modules(flyteauth._sansio.__path__):
        module = importlib.import_module(f"flyteauth._sansio.{found.name}")
        for name in inspect.get_annotations(module):
            value = getattr(module, name, None)
            if isinstance(value, int | float | Backoff):
                yield f"{found.name}.{name}", value


@pytest.mark.parametrize(
    ("name", "limit"),
    [pytest.param(name, limit, marks=proves, id=name) for name, (limit, proves) in LIMITS.items()],
)
def test_a_limit_is_what_is_promised(name: str, limit: Limit) -> None:
    assert dict(figures())[name] == limit


def test_no_figure_is_left_out() -> None:
    assert {name for name, _ in figures()} == LIMITS.keys()


def test_backing_off_is_three_attempts_from_half_a_second_to_thirty() -> None:
    assert Backoff() == Backoff(
        attempts=3, first=0.5, cap=30.0, retry_after_max=120.0, lost_replies=1
    )
