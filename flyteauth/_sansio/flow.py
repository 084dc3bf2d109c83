"""
What a flow is.

A flow is a Moore machine: frozen states, one effect per state, and a pure function from a state
and an event to the next state. It never touches a socket, a clock or a source of randomness;
whoever drives it does, one effect at a time::

    while not isinstance(state, Done):
        state = flow.advance(state, perform(flow.effect(state)))

``advance`` raises FlowError when the flow ends without a result, and UnexpectedEvent when the
driver answers an effect with the wrong event.

Because the effect depends on the state alone, a state is all there is to save: load it in
another process, ``resume`` it, perform its effect, and the flow goes on. A saved state is a
secret: it may hold a device_code or a code_verifier.
"""

from __future__ import annotations

import math
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, assert_never

import attrs
from attrs import field, frozen

from .errors import FlowError, InvalidResponse, StoreError, UnexpectedEvent, Unreachable, quote
from .http import RETRY_AFTER_MAX, Request, Response, host_of

S = TypeVar("S")
T = TypeVar("T")


# Effects: the one thing a state waits for.


@frozen
class SendRequest:
    """Send the request; answer with ResponseReceived or RequestFailed."""

    request: Request


@frozen
class WaitUntil:
    """Sleep; answer with TimeReached. Waking early is allowed."""

    deadline: float


@frozen
class ShowUserCode:
    """Tell the user where to type what (RFC 8628 §3.3); answer with UserCodeShown."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_at: float


@frozen
class OpenBrowser:
    """Send the user away and wait for them at redirect_uri; answer with RedirectReceived.

    ``state`` tells the redirect that settles this login from a stray request (RFC 6749 §10.12).
    """

    authorization_uri: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)


Effect = SendRequest | WaitUntil | ShowUserCode | OpenBrowser


# Events: how that went, and when. ``at`` is POSIX time in seconds.


@frozen
class ResponseReceived:
    """Lifetimes in the response count from ``sent_at``, when the request left. ``host`` is who
    answered, for people.
    """

    response: Response
    sent_at: float
    at: float
    host: str = "the server"


FailureReason = Literal[
    "connect", "timeout", "tls", "protocol", "too_large", "encoding", "redirect", "insecure"
]


@frozen
class RequestFailed:
    """``sent`` says whether the server may have seen the request: its reply may be lost."""

    reason: FailureReason
    text: str
    sent: bool
    at: float


@frozen
class TimeReached:
    at: float


@frozen
class UserCodeShown:
    at: float


@frozen
class RedirectReceived:
    uri: str = field(repr=False)
    at: float


Event = ResponseReceived | RequestFailed | TimeReached | UserCodeShown | RedirectReceived


@frozen
class Done(Generic[T]):
    """Where a flow ends: no effect, no events, a value."""

    value: T


class Flow(ABC, Generic[S, T]):
    """Configuration, and the transition relation over states S that ends with a T."""

    @abstractmethod
    def effect(self, state: S) -> Effect:
        """The one thing that *state* waits for."""

    @abstractmethod
    def advance(self, state: S, event: Event) -> S | Done[T]:
        """Where *event* leads from *state*.

        Raises FlowError at an end without a result, UnexpectedEvent for a wrong answer.
        """

    def resume(self, state: S, at: float) -> S:
        """What going on from a saved *state* means; raises ReauthRequired if it cannot."""
        return state


def failure(request: Request, failed: RequestFailed) -> FlowError:
    """What a request without a usable response means to a caller."""
    host = host_of(request.url)
    text = quote(failed.text)
    match failed.reason:
        case "too_large" | "encoding" | "redirect" | "insecure":
            return InvalidResponse(f"{host}: {text}; check the endpoint", reason=failed.reason)
        case "tls":
            return Unreachable(
                f"{host} cannot be trusted: {text}; if its certificate comes from a private "
                "authority, set caCertFilePath (--ca-cert, ca_cert_file_path=) to its file",
                reason="tls",
            )
        case "connect" | "timeout" | "protocol":
            return Unreachable(
                f"{host} cannot be reached: {text}; check endpoint and network, and try again",
                reason=failed.reason,
                sent=failed.sent,
            )
        case _:
            assert_never(failed.reason)


# The smallest flow: one request, one response.


@frozen
class Exchanging:
    """Waiting for the one response."""


@frozen
class Exchange(Flow[Exchanging, T]):
    """A flow that is over after one response; most grants are."""

    request: Request
    parse: Callable[[ResponseReceived], T]

    def start(self) -> Exchanging:
        return Exchanging()

    def effect(self, state: Exchanging) -> Effect:
        return SendRequest(self.request)

    def advance(self, state: Exchanging, event: Event) -> Exchanging | Done[T]:
        match event:
            case ResponseReceived():
                return Done(self.parse(event))
            case RequestFailed():
                raise failure(self.request, event)
        raise UnexpectedEvent(state, event)


# The same with patience.


@frozen
class Backoff:
    """Exponential back-off with full jitter; all times in seconds.

    ``lost_replies`` is how often a request may be repeated after its reply was lost: the server
    may have acted on it.
    """

    attempts: int = 3
    first: float = 0.5
    cap: float = 30.0
    retry_after_max: float = RETRY_AFTER_MAX
    lost_replies: int = 1

    def pause(self, attempt: int, seed: int) -> float:
        """The pause after failure number *attempt*, counted from 0."""
        return fraction(seed, attempt) * min(self.cap, self.first * 2.0**attempt)


def fraction(seed: int, index: int) -> float:
    """The number in 0..1 that 64 random bits in *seed* hold for use number *index*."""
    return (seed >> (16 * (index % 4)) & 0xFFFF) / 0xFFFF


@frozen
class Sending:
    """Asking, for the ``attempt``-th time after the first."""

    seed: int
    attempt: int = 0
    lost_replies: int = 0


@frozen
class Pausing:
    """Leaving the server alone until ``until``."""

    seed: int
    attempt: int
    lost_replies: int
    until: float


@frozen
class Retrying(Flow[Sending | Pausing, T]):
    """An exchange that is tried again while its failure is transient (RFC 9110 §9.2.2, §10.2.3).

    Only Unreachable is transient. A Retry-After beyond ``retry_after_max`` is not waited for.
    """

    exchange: Exchange[T]
    backoff: Backoff = Backoff()

    def start(self, seed: int) -> Sending:
        """*seed* is 64 random bits: the jitter."""
        return Sending(seed)

    def effect(self, state: Sending | Pausing) -> Effect:
        match state:
            case Sending():
                return SendRequest(self.exchange.request)
            case Pausing(until=until):
                return WaitUntil(until)
            case _:
                assert_never(state)

    def advance(self, state: Sending | Pausing, event: Event) -> Sending | Pausing | Done[T]:
        match state, event:
            case Sending(seed, attempt, lost), ResponseReceived(at=at) | RequestFailed(at=at):
                try:
                    end = self.exchange.advance(self.exchange.start(), event)
                except Unreachable as error:
                    lost += error.sent
                    asked = error.retry_after or 0.0
                    if (
                        attempt + 1 >= self.backoff.attempts
                        or lost > self.backoff.lost_replies
                        or asked > self.backoff.retry_after_max
                        or error.reason == "tls"
                    ):
                        raise
                    until = at + max(asked, self.backoff.pause(attempt, seed))
                    return Pausing(seed, attempt + 1, lost, until)
                assert isinstance(end, Done)
                return end
            case Pausing(seed, attempt, lost, until), TimeReached(at):
                return state if at < until else Sending(seed, attempt, lost)
        raise UnexpectedEvent(state, event)


# Saving a state.

_SIMPLE: Final = (str, int, float, bool)
_TAG: Final = "class"  # a word that no field of a state can be called


def dump(state: attrs.AttrsInstance) -> dict[str, Any]:
    """Everything a flow needs to go on in another process, ready for JSON."""
    return {_TAG: type(state).__name__, **attrs.asdict(state)}


def load(states: tuple[type[S], ...], saved: object) -> S:
    """The state that was dumped as *saved*, one of *states*; StoreError if it is none of them."""
    try:
        members = dict(_only(dict, saved))
        name = members.pop(_TAG)
        (kind,) = (kind for kind in states if kind.__name__ == name)
        return typing.cast("S", _structure(kind, members))
    except (KeyError, OverflowError, TypeError, ValueError):
        raise StoreError("the saved login is damaged; log in again", reason="corrupt") from None


def _structure(kind: Any, saved: Any) -> Any:
    if attrs.has(kind):
        hints = typing.get_type_hints(kind)
        names = {attribute.name for attribute in attrs.fields(kind)}
        if _only(dict, saved).keys() != names:
            raise ValueError
        return kind(**{name: _structure(hints[name], value) for name, value in saved.items()})
    if isinstance(kind, types.UnionType):  # the only unions are X | None
        (inner,) = (inner for inner in typing.get_args(kind) if inner is not types.NoneType)
        return None if saved is None else _structure(inner, saved)
    if typing.get_origin(kind) is tuple:
        values = saved if type(saved) is tuple else _only(list, saved)
        return tuple(_structure(typing.get_args(kind)[0], value) for value in values)
    if kind is float and type(saved) is int:
        saved = float(saved)
    if kind not in _SIMPLE or (kind is float and not math.isfinite(_only(float, saved))):
        raise ValueError
    return _only(kind, saved)


def _only(kind: type[T], saved: Any) -> Any:
    """*saved*, if it is exactly of *kind*: True is no number here."""
    if type(saved) is not kind:
        raise TypeError
    return saved
