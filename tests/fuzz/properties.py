"""What holds of everything that comes out, and how a flow is talked to."""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Iterable
from typing import Any, TypeVar, assert_never

from flyteauth._sansio.errors import Error, UnexpectedEvent, escape
from flyteauth._sansio.flow import (
    Done,
    Flow,
    OpenBrowser,
    RedirectReceived,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    ShowUserCode,
    TimeReached,
    UserCodeShown,
    WaitUntil,
    dump,
    load,
)
from flyteauth._sansio.http import YEAR, Request, Response, is_secure, split_url

S = TypeVar("S")

AT = 1_800_000_000.0
MESSAGE_MAX = 2000
REASON_MAX = 300
STEPS_MAX = 2500
CANARY = "canary-4711"  # what no error repeats of an input that holds secrets


def proper(error: Error, secret_in: bytes | None = None) -> None:
    """One printable line of bearable length that says what to do, and no secret."""
    assert not isinstance(error, UnexpectedEvent), error
    said = str(error)
    assert said
    assert escape(said) == said
    assert len(said) < MESSAGE_MAX  # else its parts were not cut, and it had to be
    assert "; " in said, said
    assert not re.search(r"\bNone\b", said), said
    assert escape(error.reason) == error.reason
    assert len(error.reason) <= REASON_MAX
    if secret_in is not None and CANARY.encode() in secret_in:
        assert CANARY not in error.reason
        assert CANARY not in "".join(traceback.format_exception(error))


def response(data: bytes) -> Response:
    """Written as a status, header lines, an empty line and the body."""
    head, _, body = data.partition(b"\n\n")
    status, *lines = head.decode("latin-1").split("\n")
    fields = (line.partition(": ") for line in lines)
    return Response(
        int(status) if re.fullmatch("[1-5][0-9]{2}", status) else 200,
        tuple((name, value) for name, _, value in fields),
        body,
    )


def responses(data: bytes) -> list[Response]:
    return [response(part) for part in data.split(b"\n---\n")]


def received(data: bytes) -> ResponseReceived:
    return ResponseReceived(response(data), AT, AT + 1, "as.example")


def sent(request: Request, plain_host: str | None = None) -> None:
    """It can be sent, and nothing in it could be read as more than it is."""
    assert is_secure(request.url, plain_host), request
    for name, value in request.headers:
        assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), request
        assert not re.search(r"[\r\n\0]", value), request


def shown(effect: ShowUserCode, plain_host: str | None = None) -> None:
    """It can be shown, and its addresses can be opened."""
    assert escape(effect.user_code) == effect.user_code
    assert 0 < len(effect.user_code) <= 64
    for uri in (effect.verification_uri, effect.verification_uri_complete):
        assert uri is None or is_secure(uri, plain_host)
    assert math.isfinite(effect.expires_at)


def converse(
    flow: Flow[S, Any],
    state: S,
    answers: Iterable[Response],
    *,
    states: tuple[type[Any], ...],
    redirect: str = "",
) -> Any:
    """What *flow* ends with if it gets *answers* and then none any more. Every state on the way can
    be saved, and every wait ends.
    """
    at = AT
    waiting = iter(answers)
    here: S | Done[Any] = state
    for _ in range(STEPS_MAX):
        if isinstance(here, Done):
            return here.value
        saved: Any = here
        assert load(states, json.loads(json.dumps(dump(saved)))) == here
        event: Any
        match flow.effect(here):
            case SendRequest(request):
                sent(request)
                answer = next(waiting, None)
                if answer is None:
                    event = RequestFailed("timeout", "no answer", sent=True, at=at)
                else:
                    event = ResponseReceived(answer, at, at, "as.example")
            case WaitUntil(deadline):
                assert math.isfinite(deadline)
                assert deadline - at <= YEAR
                at = max(at, deadline)
                event = TimeReached(at)
            case ShowUserCode() as effect:
                shown(effect)
                event = UserCodeShown(at)
            case OpenBrowser(url):
                assert split_url(url) is not None
                event = RedirectReceived(redirect, at)
            case unknown:
                assert_never(unknown)
        here = flow.advance(here, event)
    raise AssertionError("the flow does not end")
