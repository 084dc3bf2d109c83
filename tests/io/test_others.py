"""What other tools keep in the keyring is read, written and removed beside our own."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from keyring.errors import PasswordDeleteError

from flyteauth._io.lock import Locks
from flyteauth._io.store import keyring as keyring_module
from flyteauth._io.store.keyring import KeyringStore
from flyteauth._io.store.others import Found, Others
from flyteauth._sansio.errors import StoreError
from flyteauth._sansio.keyring_layouts import TOOLS, Place, Tool, places_of
from flyteauth._sansio.token import Token

from .rings import CANARY, HangingRing, OddRing, OthersRing

pytestmark = pytest.mark.anyio

AT = 1_800_000_000.0
TOKEN = Token(CANARY, AT, None, CANARY)
FLYTE = Place("flyte", "h")
EVERYWHERE = places_of(TOOLS, "dns:///h", "h")


@pytest.fixture
def ring() -> OthersRing:
    return OthersRing()


@pytest.fixture
def others(ring: OthersRing, tmp_path: Path) -> Others:
    return around(ring, tmp_path)


def around(ring: object, directory: Path) -> Others:
    locks = Locks(directory / "locks")
    return Others(KeyringStore(named=True, locks=locks, backend=ring))


async def refused(others: Others, reason: str, place: Place = FLYTE) -> str:
    with pytest.raises(StoreError) as caught:
        await others.write(place, TOKEN)
    assert caught.value.reason == reason
    said = str(caught.value)
    assert CANARY not in said
    assert "\n" not in said
    assert caught.value.__context__ is None
    return said


@pytest.mark.parametrize("tool", TOOLS)
async def test_what_is_written_for_a_tool_is_found(others: Others, tool: Tool) -> None:
    place = Place(tool, "dns:///h" if tool == "flytectl" else "h")
    await others.write(place, TOKEN)
    assert await others.find(EVERYWHERE, AT) == [Found(place, TOKEN)]


async def test_all_of_them_are_found_in_the_order_in_which_they_are_looked_for(
    others: Others,
) -> None:
    there = [EVERYWHERE[0], EVERYWHERE[-1]]
    for place in reversed(there):
        await others.write(place, TOKEN)
    assert [found.place for found in await others.find(EVERYWHERE, AT)] == there


async def test_what_is_no_login_is_found_with_what_is_wrong(
    others: Others, ring: OthersRing
) -> None:
    ring.items["h", "tokens"] = CANARY
    ring.items["h", "access_token"] = "a"
    broken, good = await others.find([FLYTE, Place("flytekit", "h")], AT)
    assert broken.error is not None
    assert broken.error.reason == "corrupt"
    assert CANARY not in repr(broken)
    assert good.token == Token("a", AT)


async def test_no_item_is_read_twice(others: Others, ring: OthersRing) -> None:
    await others.find([FLYTE, Place("flytekit", "h"), Place("flyte", "h", old=True)], AT)
    assert len(set(ring.calls)) == len(ring.calls) == 4


async def test_nothing_is_written_that_is_there(others: Others, ring: OthersRing) -> None:
    """Row 12: macOS may ask for a password for each write."""
    for _ in range(2):
        await others.write(Place("flytekit", "h"), TOKEN)
    assert ring.counted("set") == 2


async def test_the_refresh_token_of_another_login_is_removed(
    others: Others, ring: OthersRing
) -> None:
    ring.items["h", "refresh_token"] = "of somebody else"
    ring.items["h", "id_token"] = "of somebody else"
    await others.write(Place("flytekit", "h"), Token("a", AT))
    assert ring.items == {("h", "access_token"): "a"}


async def test_all_is_removed_and_said(others: Others, ring: OthersRing) -> None:
    ring.items["flyteauth", "ours"] = "stays"
    there = (FLYTE, Place("flytekit", "https://h/"), Place("flytectl", "dns:///h"))
    for place in there:
        await others.write(place, TOKEN)
    gone, error = await others.remove(EVERYWHERE)
    assert (sorted(gone, key=repr), error) == (sorted(there, key=repr), None)
    assert ring.items == {("flyteauth", "ours"): "stays"}
    assert await others.remove(EVERYWHERE) == ([], None)


async def test_what_cannot_be_removed_keeps_nothing_else_from_going(
    others: Others, ring: OthersRing
) -> None:
    kit = Place("flytekit", "h")
    await others.write(FLYTE, TOKEN)
    await others.write(kit, TOKEN)
    ring.refuses = "tokens"
    gone, error = await others.remove(EVERYWHERE)
    assert gone == [kit]
    assert error is not None
    assert error.reason == "locked"
    assert CANARY not in str(error)
    assert set(ring.items) == {("h", "tokens")}


@pytest.mark.req("SEC-01")
async def test_a_locked_keyring_says_so_and_what_to_do(others: Others, ring: OthersRing) -> None:
    ring.locked = True
    said = await refused(others, "locked")
    assert said.endswith("; unlock it")
    with pytest.raises(StoreError, match="is locked"):
        await others.find(EVERYWHERE, AT)
    gone, error = await others.remove(EVERYWHERE)
    assert gone == []
    assert error is not None


async def test_no_keyring_at_all_is_said_without_advice_that_is_of_no_use_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("FLYTEAUTH_HOME", str(tmp_path))
    monkeypatch.setattr(keyring_module, "_process", keyring_module._Process())
    said = await refused(Others(), "missing")
    assert "switched off" in said
    assert "token_store" not in said


async def test_whatever_the_keyring_raises_is_an_error_without_the_secret(tmp_path: Path) -> None:
    for error in (RuntimeError, PasswordDeleteError, lambda text: OSError(5, text)):
        odd = OddRing(error, "set")
        odd.get_password = lambda service, name: None  # type: ignore[method-assign]
        await refused(around(odd, tmp_path), "denied")


async def test_a_keyring_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    class Hanging(HangingRing):
        def get_password(self, service: str, name: str) -> str | None:
            self.step()
            return None

    ring = Hanging()
    others = around(ring, tmp_path)
    with anyio.fail_after(20):
        with pytest.raises(StoreError) as caught:
            await others.find([FLYTE], AT, deadline=0.1)
        assert caught.value.reason == "timeout"
        assert str(caught.value).endswith("unlock it")
    ring.go.set()
