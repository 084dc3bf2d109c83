"""What is read back from where something was kept: stores, notes, configuration."""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyteauth._identity import parse_key
from flyteauth._io.clock import SystemClock
from flyteauth._io.notes import Notes
from flyteauth._io.store.envelope import key_in, seal, unseal
from flyteauth._io.store.file import _parse as parse_file
from flyteauth._io.store.items import Found, Items
from flyteauth._io.store.ring import Damaged, Ring
from flyteauth._machine import Machine
from flyteauth._pending import _parse as parse_pending
from flyteauth._sansio.errors import ConfigError, StoreError
from flyteauth._sansio.flow import dump, load
from flyteauth._sansio.keyring_layouts import TOOLS, places
from flyteauth._sansio.record import load_record
from flyteauth._stored import _at_once
from flyteauth._target import Target
from flyteauth.config import SETTINGS, resolve
from tests.fuzz.properties import AT, CANARY, proper
from tests.io.rings import MemoryRing

KEY = "key"
PLACE = Path("/home/ada/logins/key")


def record(data: bytes) -> None:
    """A login as text."""
    try:
        found = load_record(data.decode("utf-8", "replace"))
    except StoreError as error:
        proper(error, data)
        return
    assert load_record(found.dump()) == found


def login_file(data: bytes) -> None:
    """A file of the file store: a record, or a mark."""
    try:
        found = parse_file(KEY, data, PLACE)
    except StoreError as error:
        proper(error, data)
    else:
        if not isinstance(found, str):
            assert unseal(KEY, seal(KEY, found, "there"), "there") == found
    try:
        key = key_in(data, "there")
    except StoreError as error:
        proper(error, data)
        return
    known = parse_key(key)
    assert known is None or parse_key(known.text) == known


def keyring_items(data: bytes) -> None:
    """The items of a keyring, one a line: name and text."""
    backend = MemoryRing()
    items = Items(Ring(backend), KEY)
    places = {b"first": items._name, b"copy": items._copy}
    for line in data.split(b"\n"):
        name, _, text = line.partition(b" ")
        where = places.get(name) or f"{items._name}/{name.decode('latin-1')}"
        backend.items[where] = text.decode("utf-8", "replace")
    try:
        before = items.read()
    except Damaged:
        before = Found()
    items.write("new", before)  # what is there, whatever it is, can be replaced
    assert items.read().text == "new"
    items.delete()
    assert items.read() == Found()


def tool_items(data: bytes) -> None:
    """What another tool keeps in the keyring: its name in a line, then an item a line."""
    name, *items = data.decode("utf-8", "replace").split("\n")
    tool = next((tool for tool in TOOLS if tool == name), TOOLS[0])
    for place in places(tool, "dns:///flyte.example", "flyte.example"):
        try:
            found = place.parse(dict(zip(place.names, items, strict=False)), AT)
        except StoreError as error:
            proper(error, data)
            continue
        if found is not None:
            again = place.parse(place.written(found), AT)
            assert again is not None
            assert again.access_token == found.access_token
            assert again.refresh_token == found.refresh_token


def begun_login(data: bytes) -> None:
    """A device login that another process is to finish."""
    try:
        pending = parse_pending(data)
    except StoreError as error:
        proper(error, data)
        return
    assert parse_pending(json.dumps(dump(pending)).encode()) == pending


class _Notes(Notes):
    """Where there is one note, under every name."""

    def __init__(self, note: Mapping[str, Any]) -> None:
        self._note = note

    async def read(self, name: str) -> Mapping[str, Any]:
        return self._note


def note(data: bytes) -> None:
    """What another program has left: of a prompt, of a refresh that failed, of discovery."""
    try:
        left = json.loads(data)
    except (ValueError, RecursionError):
        return
    machine = Machine(None, SystemClock())
    machine._notes = _Notes(left if isinstance(left, dict) else {})
    _at_once(machine.muted(KEY))
    failure = _at_once(machine.failure_since(KEY, 0.0))
    assert failure is None or "\n" not in str(failure)
    target = _at_once(machine.target(KEY))
    if target is not None:
        assert load((Target,), json.loads(json.dumps(dump(target)))) == target


HOME = tempfile.TemporaryDirectory()
atexit.register(HOME.cleanup)


def config_file(data: bytes) -> None:
    """A config.yaml, all the way to the settings."""
    path = Path(HOME.name) / "config.yaml"
    path.write_bytes(data)
    try:
        settings = resolve({}, environ={}, path=path, search=False)
    except ConfigError as error:
        # A key that is perhaps misspelled is named; only what it says is a secret.
        if CANARY not in str(error) or "is not known" not in str(error):
            proper(error, data)
        return
    assert CANARY not in repr(settings.replace(**dict.fromkeys(_SHOWN), unknown_keys=()))


# What is no secret, whatever it says.
_SHOWN = (
    *("endpoint", "client_id", "scopes", "audience", "redirect_uri", "browser_command"),
    *("endpoints", "ca_file", "account", "org", "project", "domain", "issuer", "client_secret"),
)


VARIABLES = frozenset(name for setting in SETTINGS for name in setting.variables)


def environment(data: bytes) -> None:
    """Variables of the environment, one a line."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    environ = {
        name: value
        for name, _, value in (line.partition("=") for line in lines)
        if (name in VARIABLES and "CERT" not in name) or name.endswith("_API_KEY")
    }
    try:
        settings = resolve({}, environ=environ, search=False)
    except ConfigError as error:
        proper(error, data)
        return
    assert settings.endpoint is None or settings.plain_host in {None, settings.endpoint.host}


TARGETS = (
    record,
    login_file,
    keyring_items,
    tool_items,
    begun_login,
    note,
    config_file,
    environment,
)
