"""
Every deadline, patience and size outside of the pure core, stated once more: one that a test
imports would be right whatever it is. Each is finite.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import flyteauth
from flyteauth.config import Settings

ROOT: Final = Path(__file__).parents[1]
BOUND: Final = re.compile(
    r"(?:.*_)?(?:AGE|ATTENTION|BROKEN_OFF|DEADLINE|FINISH|GRACE|KEEP_ALIVE|LATELY|LEAVE_ALONE|LINGER|"
    r"LONGEST|MAX|MUTE|PATIENCE|RETRY_AFTER|SETTLE|TIDY_UP|TIMEOUT|TRIES|WAIT)"
)
ELSEWHERE: Final = re.compile(
    r"flyteauth\.(?:_sansio|_doctor|cli|devserver|integrations|__main__)\b"
)

LIMITS: Final[dict[str, float]] = {
    "_audience.HOOK_DEADLINE": 10.0,
    "_config_file.ALIASES_MAX": 32,
    "_config_file.FILE_MAX": 1_048_576,
    "_connection.CA_FILE_MAX": 4_194_304,
    "_grants.FINISH_DEADLINE": 60.0,
    "_grants.POLL_GRACE": 2.0,
    "_io.bind._PORT_TRIES": 32,
    "_io.browser.DEADLINE": 10.0,
    "_io.browser.SETTLE": 2.0,
    "_io.browser.TERM_GRACE": 1.0,
    "_io.command.DEADLINE": 60.0,
    "_io.command.KILL_GRACE": 1.0,
    "_io.command.PIPE_GRACE": 0.25,
    "_io.command.STDERR_MAX": 2048,
    "_io.command.TERM_GRACE": 1.0,
    "_io.folder.LEFTOVER_AGE": 600.0,
    "_io.keys.LONGEST": 65536,
    "_io.layout.LINE_MAX": 80,
    "_io.layout.LINK_MAX": 2000,
    "_io.lock.DEADLINE": 5.0,
    "_io.lock.GRACE": 1.0,
    "_io.lock.IMPORT_DEADLINE": 30.0,
    "_io.loopback.CONNECTIONS_MAX": 32,
    "_io.loopback.EXIT_GRACE": 0.5,
    "_io.loopback.LINGER": 1.0,
    "_io.loopback.READ_TIMEOUT": 10.0,
    "_io.notes.DEADLINE": 2.0,
    "_io.notes.SIZE_MAX": 1_048_576,
    "_io.port_holder.DEADLINE": 2.0,
    "_io.port_holder.NAME_MAX": 40,
    "_io.portal.FINISH": 3.0,
    "_io.portal.TIDY_UP": 2.0,
    "_io.proxy_credential.RETRY_AFTER": 5.0,
    "_io.store.envelope.SIZE_MAX": 4_194_304,
    "_io.store.file.DEADLINE": 5.0,
    "_io.store.file.WRITE_WAIT": 4.0,
    "_io.store.items.HEADER_MAX": 120,
    "_io.store.items.READS_MAX": 3,
    "_io.store.keyring.DEADLINE": 5.0,
    "_io.store.keyring.PATIENCE": 30.0,
    "_io.store.keyring.WRITE_WAIT": 25.0,
    "_io.store.redis.LEAVE_ALONE": 10.0,
    "_io.store.redis.LIFETIME_MAX": 315_360_000.0,
    "_io.store.redis.PAUSE_MAX": 0.25,
    "_io.store.redis.PREPARE_DEADLINE": 30.0,
    "_io.store.redis.RELEASE_DEADLINE": 1.0,
    "_io.store.redis_line.ANSWER_MAX": 5_242_880,
    "_io.store.ring.ITEM_MAX": 1200,
    "_io.terminal.HINT_PATIENCE": 1.0,
    "_io.terminal.QR_DEADLINE": 2.0,
    "_io.terminal.WRITE_DEADLINE": 5.0,
    "_io.transport.CHUNKS_MAX": 4096,
    "_io.transport.CLOSE_DEADLINE": 2.0,
    "_io.transport.HEAD_MAX": 32768,
    "_io.transport.KEEP_ALIVE": 1.5,
    "_leaving.DEADLINE": 60.0,
    "_lifetime.ATTENTION": 20.0,
    "_lifetime.CLOSE_DEADLINE": 30.0,
    "_lifetime.DISCOVERY_DEADLINE": 60.0,
    "_lifetime.RENEW_DEADLINE": 150.0,
    "_lifetime.RETRY_AFTER": 5.0,
    "_lifetime.TURN_DEADLINE": 160.0,
    "_login.TIDY_UP": 60.0,
    "_login.WHOAMI_DEADLINE": 3.0,
    "_machine.MUTE": 300.0,
    "_machine.MUTE_BROKEN_OFF": 60.0,
    "_machine.TARGET_AGE_MAX": 86400.0,
    "_opening.PATIENCE": 10.0,
    "_pending.DEADLINE": 5.0,
    "_pending.SIZE_MAX": 262_144,
    "_procedures.PAGES_MAX": 10000,
    "_service.HEADER_PATIENCE": 3.0,
    "_target.METADATA_DEADLINE": 10.0,
    "_upkeep.REVOKE_DEADLINE": 10.0,
    "_verified.LATELY": 2.0,
    "config.READ_DEADLINE": 15.0,
    "config.SECRET_MAX": 65536,
}


PROMISED: Final = [
    ("README.md", "asked for another only after half a minute", "_sansio.renewal.BREAKER", 30.0),
    ("README.md", "mutes the others for five minutes", "_machine.MUTE", 300.0),
    ("README.md", "one whose program was ended over it for one;", "_machine.MUTE_BROKEN_OFF", 60.0),
    ("docs/flyte-tools.md", "believes for two seconds", "_verified.LATELY", 2.0),
    ("docs/logging-in.md", "`did not say within 20 s how to log in`", "_lifetime.ATTENTION", 20.0),
    ("docs/logging-in.md", "goes on with it after 10 s", "_opening.PATIENCE", 10.0),
    ("docs/logging-in.md", "a service tries for 60 s", "_lifetime.DISCOVERY_DEADLINE", 60.0),
    ("docs/servers.md", "An error after 5 seconds", "_io.store.keyring.DEADLINE", 5.0),
    ("docs/servers.md", "files after 30", "_io.store.keyring.PATIENCE", 30.0),
]


def limits() -> Iterator[tuple[str, float]]:
    """What the modules themselves declare as a bound, by the name of the module."""
    for found in pkgutil.walk_packages(flyteauth.__path__, "flyteauth."):
        if ELSEWHERE.match(found.name):
            continue
        module = importlib.import_module(found.name)
        for name in inspect.get_annotations(module):
            value = getattr(module, name, None)
            if BOUND.fullmatch(name) and isinstance(value, int | float):
                yield f"{found.name.removeprefix('flyteauth.')}.{name}", value


@pytest.mark.req("NET-01")
@pytest.mark.parametrize("name", LIMITS)
def test_a_bound_is_what_is_stated(name: str) -> None:
    assert dict(limits())[name] == LIMITS[name]
    assert math.isfinite(LIMITS[name])


@pytest.mark.req("NET-01")
def test_no_bound_is_left_out() -> None:
    assert {name for name, _ in limits()} == LIMITS.keys()


@pytest.mark.req("NET-01", "CBK-16")
def test_a_login_and_a_command_have_the_time_that_the_configuration_names() -> None:
    rows = (ROOT / "docs" / "configuration.md").read_text("utf-8").splitlines()
    for name, seconds, said in [
        (
            "login_timeout",
            300.0,
            "Seconds that a login in a browser may take; a device code has its own. Default 300.",
        ),
        ("command_timeout", 60.0, "Seconds that a command may take. Default 60."),
    ]:
        assert getattr(Settings(), name) == seconds
        assert [row for row in rows if f"`{name}`" in row and said in row]


@pytest.mark.parametrize(("document", "words", "name", "value"), PROMISED)
def test_what_the_documents_promise_is_so(
    document: str, words: str, name: str, value: float
) -> None:
    assert words in " ".join((ROOT / document).read_text("utf-8").split())
    module, _, constant = f"flyteauth.{name}".rpartition(".")
    assert getattr(importlib.import_module(module), constant) == value
