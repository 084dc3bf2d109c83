from __future__ import annotations

import types
from collections.abc import Generator
from types import FrameType
from typing import Any

import anyio.lowlevel
import pytest

from flyteauth._io.frames import clear, clearing

pytestmark = pytest.mark.anyio

OURS = {"__name__": "flyteauth.made_up"}


def made(source: str, **names: object) -> dict[str, object]:
    """What *source* defines, as if it were of the package."""
    scope: dict[str, object] = {**OURS, **names}
    exec(source, scope)  # noqa: S102  # a frame is told by the module of its function
    return scope


def frames(error: BaseException) -> list[FrameType]:
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return found


FAILING = made("""
def fail():
    secret = "CANARY"
    raise ValueError

def fail_because():
    try:
        fail()
    except ValueError:
        secret = "CANARY"
        raise KeyError from None
""")


@pytest.mark.req("SEC-02")
@pytest.mark.parametrize("name", ["fail", "fail_because"])
async def test_what_fails_says_where_but_not_with_what_variables(name: str) -> None:
    mine = "of the test"

    @clearing
    async def call() -> None:
        await anyio.lowlevel.checkpoint()
        FAILING[name]()  # type: ignore[operator]

    with pytest.raises((ValueError, KeyError)) as caught:
        await call()
    errors: list[BaseException] = [caught.value]
    if caught.value.__context__ is not None:
        errors.append(caught.value.__context__)
    theirs = [one for error in errors for one in frames(error) if one.f_code.co_name in FAILING]
    assert {one.f_code.co_name for one in theirs} == {"fail", name}
    assert [one.f_locals for one in theirs] == [{} for _ in theirs]
    assert frames(caught.value)[0].f_locals["mine"] == mine


@pytest.mark.parametrize("kind", ["coroutine", "generator"])
def test_what_still_waits_is_left_alone(kind: str) -> None:
    """An exception may be on its way while a function that caught it goes on."""
    kept: list[BaseException] = []
    word = "await" if kind == "coroutine" else "yield from"
    scope = made(
        f"""
{"async " if kind == "coroutine" else ""}def goes_on():
    value = "value"
    try:
        raise ValueError
    except ValueError as error:
        kept.append(error)
    {word} pause()
    return value
""",
        kept=kept,
        pause=types.coroutine(_pause),
    )
    work = scope["goes_on"]()  # type: ignore[operator]
    work.send(None)
    clear(kept[0])
    with pytest.raises(StopIteration) as caught:
        work.send(None)
    assert caught.value.value == "value"
    clear(kept[0])
    assert frames(kept[0])[0].f_locals == {}


def _pause() -> Generator[None, None, None]:
    yield


class Hidden(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> tuple[Exception, ...]:
        raise RuntimeError("they are nobody's business")


@pytest.mark.anyio
@pytest.mark.parametrize("name", [None, 5, b"x", ""])
async def test_no_frame_and_no_group_takes_the_place_of_the_error(name: object) -> None:
    program: dict[str, Any] = {"__name__": name}
    exec("def fail():\n    raise ValueError('theirs')", program)  # noqa: S102

    @clearing
    async def ours() -> None:
        try:
            program["fail"]()
        except ValueError as error:
            raise Hidden("several", [error]) from error

    with pytest.raises(Hidden):
        await ours()


def test_others_keep_their_variables_and_a_ring_of_causes_ends() -> None:
    def fail() -> None:
        theirs = "theirs"
        raise ValueError(theirs)

    with pytest.raises(ValueError, match="theirs") as caught:
        fail()
    error = caught.value
    error.__cause__ = group = ExceptionGroup("several", [error, KeyError()])
    group.__context__ = error
    clear(error)
    assert frames(error)[-1].f_locals == {"theirs": "theirs"}
