"""
The state diagrams, drawn from the code of the flows.

What is read is the ``match`` of a flow's ``advance``: every case is a state and an event, and what
its body returns or raises is where that leads. What its body calls is followed by its annotations,
and into the flow's own methods. Nothing is run, so an arrow is there whether or not a test takes
it; ``test_diagrams`` has real conversations take only arrows that are drawn.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Final

from attrs import frozen

from flyteauth._sansio import authorization_code, device_authorization, discovery, errors, flow
from flyteauth._sansio.authorization_code import AuthorizationCode
from flyteauth._sansio.device_authorization import DeviceAuthorization
from flyteauth._sansio.discovery import Discovery
from flyteauth._sansio.flow import Done, Exchange, Flow, Retrying

FLOWS: Final[dict[str, tuple[type[Flow[Any, Any]], tuple[type, ...]]]] = {
    "authorization-code": (AuthorizationCode, authorization_code.STATES),
    "device-authorization": (DeviceAuthorization, device_authorization.STATES),
    "retrying": (Retrying, (flow.Sending, flow.Pausing)),
    "discovery": (Discovery, discovery.STATES),
}


@frozen(order=True)
class Arrow:
    """From one state to another, to Done, or to the name of an error."""

    source: str
    target: str
    event: str


def mermaid(name: str) -> str:
    """The diagram of one flow, in Mermaid's language."""
    kind, states = FLOWS[name]
    drawn = arrows(kind, states)
    effects = _effects(kind)
    lines = ["stateDiagram-v2"]
    lines += [
        f'    state "{state.__name__} ▸ {effects[state.__name__]}" as {state.__name__}'
        for state in states
    ]
    lines.append(f"    [*] --> {states[0].__name__}")
    for source, target in dict.fromkeys((arrow.source, arrow.target) for arrow in drawn):
        events = [
            arrow.event for arrow in drawn if (arrow.source, arrow.target) == (source, target)
        ]
        lines.append(f"    {source} --> {target}: {', '.join(events)}")
    lines.append("    Done --> [*]")
    return "\n".join(["```mermaid", *lines, "```"])


def arrows(kind: type[Flow[Any, Any]], states: Sequence[type]) -> list[Arrow]:
    """Every arrow of a flow, in the order of its table."""
    reader = _Reader(kind, states)
    table = reader.method("advance")
    found: dict[Arrow, None] = {}
    for case in _cases(table):
        source, events = _of(case.pattern)
        for event in events:
            known = {**reader.captured(case.pattern), "event": {event}}
            for target in reader.leads_to(case.body, known):
                found[Arrow(source, target, event)] = None
    return list(found)


def _effects(kind: type[Flow[Any, Any]]) -> dict[str, str]:
    """The effect of each state."""
    found = {}
    for case in _cases(_definition(kind.effect)):
        (statement,) = case.body
        if isinstance(case.pattern, ast.MatchClass) and isinstance(statement, ast.Return):
            assert isinstance(statement.value, ast.Call)
            found[ast.unparse(case.pattern.cls)] = ast.unparse(statement.value.func)
    return found


def _definition(function: object) -> ast.FunctionDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body  # type: ignore[arg-type]
    assert isinstance(node, ast.FunctionDef)
    return node


def _cases(function: ast.FunctionDef) -> list[ast.match_case]:
    (match,) = (node for node in function.body if isinstance(node, ast.Match))
    return match.cases


def _of(pattern: ast.pattern) -> tuple[str, list[str]]:
    """The state and the events that a case is about."""
    assert isinstance(pattern, ast.MatchSequence)
    state, event = pattern.patterns
    events = event.patterns if isinstance(event, ast.MatchOr) else [event]
    return _class_of(state), [_class_of(each) for each in events]


def _class_of(pattern: ast.pattern) -> str:
    assert isinstance(pattern, ast.MatchClass)
    return ast.unparse(pattern.cls)


def _is_error(name: str) -> bool:
    made = getattr(errors, name, None)
    return isinstance(made, type) and issubclass(made, errors.Error)


class _Reader:
    """Follows what the body of a case returns and raises."""

    def __init__(self, kind: type[Flow[Any, Any]], states: Sequence[type]) -> None:
        self.kind = kind
        self.module: ModuleType = inspect.getmodule(kind)  # type: ignore[assignment]
        self.states = {state.__name__: state for state in states}
        self.ends = {*self.states, Done.__name__}

    def method(self, name: str) -> ast.FunctionDef:
        return _definition(getattr(self.kind, name))

    def captured(self, pattern: ast.pattern) -> dict[str, set[str]]:
        """The names that a pattern binds to states, and the state that is matched itself."""
        assert isinstance(pattern, ast.MatchSequence)
        state = pattern.patterns[0]
        assert isinstance(state, ast.MatchClass)
        known = {"state": {_class_of(state)}}
        fields = list(getattr(self.states[_class_of(state)], "__annotations__", {}).items())
        for (_, annotation), part in zip(fields, state.patterns, strict=False):
            if isinstance(part, ast.MatchAs) and part.name and annotation in self.states:
                known[part.name] = {annotation}
        return known

    def leads_to(self, body: Sequence[ast.stmt], known: dict[str, set[str]]) -> Iterator[str]:
        """Where the statements of *body* lead, *known* being what names stand for."""
        known = dict(known)
        caught: dict[int, set[str]] = {}
        nodes = [node for statement in body for node in ast.walk(statement)]
        for node in nodes:
            if isinstance(node, ast.ExceptHandler):
                errors = {ast.unparse(node.type)} if node.type is not None else set()
                if node.name:
                    known[node.name] = errors
                caught |= {id(each): errors for each in ast.walk(node)}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] = set(self._values(node.value, known))
        for node in nodes:
            if isinstance(node, ast.Return) and node.value is not None:
                yield from self._values(node.value, known)
            elif isinstance(node, ast.Raise) and node.exc is not None:
                yield from self._values(node.exc, known)
            elif isinstance(node, ast.Raise):
                yield from caught[id(node)]

    def _values(self, value: ast.expr, known: dict[str, set[str]]) -> Iterator[str]:
        """The states, ends and errors that an expression may come to."""
        match value:
            case ast.Name(id=name):
                yield from known.get(name, ())
            case ast.IfExp(body=one, orelse=other):
                yield from self._values(one, known)
                yield from self._values(other, known)
            case ast.Call(func=ast.Name(id="evolve"), args=[first, *_]):
                yield from self._values(first, known)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                if inspect.isfunction(getattr(self.kind, name)):  # not a function in a field
                    yield from self._result_of(self.method(name), known)
            case ast.Call(func=ast.Name(id=name)) if name in self.ends:
                yield name
            case ast.Call(func=ast.Name(id=name)):
                if _is_error(name):
                    yield name
                elif inspect.isfunction(made := getattr(self.module, name, None)):
                    yield from self._annotated(_definition(made))
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="exchange"), attr="advance")):
                for case in _cases(_definition(Exchange.advance)):
                    if {_class_of(case.pattern)} == known["event"]:
                        yield from self.leads_to(case.body, known)

    def _annotated(self, function: ast.FunctionDef) -> Iterator[str]:
        said = ast.unparse(function.returns) if function.returns is not None else ""
        if said in self.ends or _is_error(said):
            yield said

    def _result_of(self, function: ast.FunctionDef, known: dict[str, set[str]]) -> Iterator[str]:
        """What one of the flow's own methods, which is given the state, leads to."""
        for argument in function.args.args:
            said = ast.unparse(argument.annotation) if argument.annotation is not None else ""
            if said in self.states or _is_error(said):
                known = {**known, argument.arg: {said}}
        yield from self.leads_to(function.body, known)
