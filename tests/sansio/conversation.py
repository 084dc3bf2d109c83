"""
What the conversations with the model server, and the tests of single steps, have in common.

A conversation is a flow and the pure control plane, talking. Hypothesis owns the clock, the
network, the user and the process: every state is saved and loaded before it goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

import attrs
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from flyteauth._sansio.client import AuthorizationServer, parse_metadata
from flyteauth._sansio.errors import FlowError, ReauthRequired, UnexpectedEvent
from flyteauth._sansio.flow import (
    Done,
    Effect,
    Event,
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
from flyteauth._sansio.http import Request, Response, get, parse_object
from flyteauth._sansio.value import Value
from flyteauth.devserver.model import ControlPlane, Settings

from ..fuzz.properties import proper
from . import strategies

T = TypeVar("T")

ANSWERS: Final[dict[type[Effect], tuple[type[Event], ...]]] = {
    SendRequest: (ResponseReceived, RequestFailed),
    WaitUntil: (TimeReached,),
    ShowUserCode: (UserCodeShown,),
    OpenBrowser: (RedirectReceived,),
}


def reply(status: int = 200, headers: dict[str, str] | None = None, /, **body: Any) -> Response:
    """A JSON response."""
    return Response(status, tuple((headers or {}).items()), json.dumps(body).encode())


def answer(response: Response, at: float = 0.0, sent_at: float | None = None) -> ResponseReceived:
    """A response that arrived *at*, at once unless *sent_at* says otherwise."""
    return ResponseReceived(response, at if sent_at is None else sent_at, at)


def reloaded(states: tuple[type[Any], ...], state: Any) -> Any:
    """*state* after a process saved it and another one loaded it."""
    loaded = load(states, json.loads(json.dumps(dump(state))))
    assert loaded == state
    return loaded


def outcome(action: Callable[[], T]) -> T | FlowError:
    """What *action* returns, or the FlowError that it raises: nothing else may come out of it.

    Every time in a value is finite, and every message fit to print.
    """
    try:
        value = action()
    except FlowError as error:
        proper(error)
        return error
    assert_finite(value)
    return value


def assert_finite(value: object) -> None:
    if isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, tuple):
        for item in value:
            assert_finite(item)
    elif isinstance(value, Value):
        for item in vars(value).values():
            assert_finite(item)
    elif attrs.has(kind := type(value)):
        for attribute in attrs.fields(kind):
            assert_finite(getattr(value, attribute.name))


def check_step(
    flow: Flow[Any, Any], states: tuple[type[Any], ...], state: Any, event: Event
) -> None:
    """One square of states × events: a state, an end, or the right kind of error."""
    if not isinstance(event, ANSWERS[type(flow.effect(state))]):
        with pytest.raises(UnexpectedEvent) as raised:
            flow.advance(state, event)
        assert str(raised.value) == str(UnexpectedEvent(state, event))
        return
    after = outcome(lambda: flow.advance(state, event))
    if not isinstance(after, Done | FlowError):
        assert isinstance(after, states)
        reloaded(states, after)


# Conversations.

BASE: Final = "https://flyte.example"
CONVERSATIONS: Final = settings(max_examples=100, stateful_step_count=25)


def control_plane(faults: frozenset[str] = frozenset(), **changed: Any) -> ControlPlane:
    """A control plane at BASE, the same at every start."""
    chosen: dict[str, Any] = {"base_url": BASE, "faults": faults, **changed}
    return ControlPlane(Settings(**chosen), seed=b"0123456789abcdef")


def metadata_of(plane: ControlPlane) -> AuthorizationServer:
    """What the control plane says about its authorization server."""
    well_known = f"{BASE}/.well-known/oauth-authorization-server"
    return parse_metadata(parse_object(plane.handle(get(well_known), 0.0)))


networks: Final = st.sampled_from([*["up"] * 5, "down", "lost", "busy"])
latencies: Final = st.sampled_from([0.0, 0.0, 0.25, 5.0])
BUSY: Final = Response(503, (("Retry-After", "100"),), b"<html>upstream connect error")


class Conversation(RuleBasedStateMachine):
    """A flow and the control plane talk; Hypothesis owns clock, network, user and process."""

    states: ClassVar[tuple[type[Any], ...]]
    flow: Flow[Any, Any]
    plane: ControlPlane
    state: Any
    at = 1000.0
    sent_at = 0.0  # when the last request left
    end: Done[Any] | FlowError | ReauthRequired | None = None

    def step(self, late: float = 0.0, network: str = "up", latency: float = 0.0) -> None:
        """One effect is performed and answered."""
        if self.end is not None:
            return
        before = self.state = reloaded(self.states, self.state)
        event: Event | None
        deadline = math.inf
        match self.flow.effect(before):
            case SendRequest(request):
                event = self.send(request, network, latency)
            case WaitUntil(deadline):
                self.at = max(self.at, deadline + late)
                event = TimeReached(self.at)
            case effect:
                event = self.ask_user(effect)
        if event is None:
            return
        try:
            after = self.flow.advance(before, event)
        except FlowError as error:
            proper(error)
            after = self.end = error
        else:
            assert_finite(after)
            if isinstance(after, Done):
                self.end = after
            else:
                assert isinstance(after, self.states)
                self.state = after
        if isinstance(event, TimeReached) and event.at >= deadline:
            assert after != before  # nobody waits for ever
        self.observe(before, event, after)

    def send(self, request: Request, network: str, latency: float) -> Event:
        self.sent_at = self.at
        self.at += latency
        if network == "down":
            return RequestFailed("connect", "connection refused", sent=False, at=self.at)
        if network == "busy":
            return ResponseReceived(BUSY, self.sent_at, self.at)
        response = self.plane.handle(request, self.sent_at + latency / 2)
        if network == "lost":
            self.unheard(response)
            return RequestFailed("timeout", "no answer", sent=True, at=self.at)
        return ResponseReceived(response, self.sent_at, self.at)

    def ask_user(self, effect: Effect) -> Event | None:
        """What the user does; None if they have not done it yet."""
        raise NotImplementedError

    def observe(self, before: Any, event: Event, after: Any) -> None:
        """Called after each step: the place for the RFC as an oracle."""

    def unheard(self, response: Response) -> None:
        """Called when the server answered and nobody heard it."""

    def resumed(self, before: Any) -> None:
        """Called when another process took over."""

    @rule(late=st.sampled_from([-0.5, 0.0, 0.125, 90.0]), network=networks, latency=latencies)
    def one_step(self, late: float, network: str, latency: float) -> None:
        self.step(late, network, latency)

    @rule(count=st.integers(2, 9))
    def smooth_running(self, count: int) -> None:
        for _ in range(count):
            self.step()

    @precondition(lambda self: self.end is None)
    @rule(downtime=strategies.pauses, asking=st.booleans())
    def process_dies(self, downtime: float, asking: bool) -> None:
        """Perhaps while its request is on the way. Another one goes on, some time later."""
        match self.flow.effect(self.state):
            case SendRequest(request) if asking:
                self.sent_at = self.at
                self.unheard(self.plane.handle(request, self.at))
        self.at += downtime
        before = reloaded(self.states, self.state)
        try:
            self.state = self.flow.resume(before, self.at)
        except (FlowError, ReauthRequired) as error:
            self.end = error
        self.resumed(before)

    @precondition(lambda self: self.end is None)
    @rule(event=strategies.plain_events)
    def wrong_answer(self, event: Event) -> None:
        if not isinstance(event, ANSWERS[type(self.flow.effect(self.state))]):
            with pytest.raises(UnexpectedEvent):
                self.flow.advance(self.state, event)
