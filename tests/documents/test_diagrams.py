"""The diagrams say what the flows do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from flyteauth._sansio.flow import Done, Event
from flyteauth.errors import FlowError
from tests.sansio.conversation import CONVERSATIONS, Conversation
from tests.sansio.test_authorization_code import AuthorizationCodeConversation
from tests.sansio.test_device_authorization import DeviceConversation
from tests.sansio.test_discovery import DiscoveryConversation

from .diagrams import FLOWS, Arrow, arrows, mermaid

FEW = settings(CONVERSATIONS, max_examples=20)


def drawn(name: str) -> list[Arrow]:
    kind, states = FLOWS[name]
    return arrows(kind, states)


@pytest.mark.parametrize(
    ("name", "conversation"),
    [
        ("authorization-code", AuthorizationCodeConversation),
        ("device-authorization", DeviceConversation),
        ("discovery", DiscoveryConversation),
    ],
)
def test_conversations_go_only_where_an_arrow_leads(
    name: str, conversation: type[Conversation]
) -> None:
    arrows_of = set(drawn(name))
    gone: set[Arrow] = set()

    class Watched(conversation):  # type: ignore[valid-type, misc]
        def observe(self, before: Any, event: Event, after: Any) -> None:
            super().observe(before, event, after)
            if not isinstance(after, FlowError):
                arrow = Arrow(type(before).__name__, type(after).__name__, type(event).__name__)
                gone.add(arrow)
                assert arrow in arrows_of

    run_state_machine_as_test(Watched, settings=FEW)
    assert gone


@pytest.mark.parametrize("name", FLOWS)
def test_every_state_can_be_left_and_every_flow_can_succeed(name: str) -> None:
    _, states = FLOWS[name]
    assert {arrow.source for arrow in drawn(name)} == {state.__name__ for state in states}
    assert Done.__name__ in {arrow.target for arrow in drawn(name)}


def test_a_diagram_names_the_effect_of_each_state_and_joins_events() -> None:
    lines = [line.strip() for line in mermaid("device-authorization").splitlines()]
    assert 'state "Prompting ▸ ShowUserCode" as Prompting' in lines
    assert "Polling --> Waiting: ResponseReceived, RequestFailed" in lines
    assert "Waiting --> Expired: TimeReached" in lines


def test_the_arrows_of_the_device_flow() -> None:
    def to(source: str, *targets: str) -> Iterator[tuple[str, str]]:
        yield from ((source, target) for target in targets)

    assert {(arrow.source, arrow.target) for arrow in drawn("device-authorization")} == {
        *to("Authorizing", "Prompting", "FlowError"),
        *to("Prompting", "Waiting"),
        *to("Waiting", "Waiting", "Polling", "Expired"),
        *to("Polling", "Waiting", "Done", "Expired", "OAuth2Error", "InvalidResponse", "FlowError"),
    }
