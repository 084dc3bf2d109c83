"""Values without attrs: the same manners."""

from __future__ import annotations

import copy
import pickle

import pytest

from flyteauth._sansio.token import Token
from flyteauth._sansio.value import Value


class Point(Value, hidden=("secret",), uncompared=("note",)):
    x: int
    y: int = 0
    secret: str = "canary"
    note: str = ""


def test_what_is_a_field_is_known_when_the_class_is_made() -> None:
    class Line(Value, hidden=("end",), uncompared=("start",)):
        start: int
        end: int = 1

    assert Line.__match_args__ == ("start", "end")
    assert repr(Line(0)) == "Line(start=0)"
    assert Line(0) == Line(5)
    assert Line(0) != Line(0, 2)


class Nothing(Value):
    """No fields."""


class Other(Value):
    x: int


class Another(Value):
    x: int


def test_fields_are_given_by_place_or_name_and_have_defaults() -> None:
    point = Point(1, y=2)
    assert (point.x, point.y, point.secret, point.note) == (1, 2, "canary", "")
    assert Point(x=1) == Point(1, 0)


@pytest.mark.parametrize(
    ("positional", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1,), {"x": 1}),
        ((1,), {"z": 1}),
        ((1, 2, "", "", 5), {}),
    ],
)
def test_a_value_is_made_of_its_fields_and_nothing_else(
    positional: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError, match="Point takes x, y, secret, note"):
        Point(*positional, **named)  # type: ignore[arg-type]


def test_equality_is_of_the_kind_and_of_what_is_compared() -> None:
    assert Point(1, note="a") == Point(1, note="b")
    assert hash(Point(1, note="a")) == hash(Point(1, note="b"))
    assert hash(Point(1)) != hash(Point(2))
    assert Point(1, secret="a") != Point(1, secret="b")
    assert Other(1) != Point(1)
    assert Other(1) != Another(1)
    assert Other(1) != (1,)
    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing(), Other(1)}) == 2


@pytest.mark.req("SEC-01")
def test_what_is_hidden_is_not_in_the_repr() -> None:
    assert repr(Point(1)) == "Point(x=1, y=0, note='')"
    assert repr(Nothing()) == "Nothing()"
    token = Token("canary", 1.0, None, "canary", "canary", ("all",))
    assert repr(token) == "Token(obtained_at=1.0, expires_at=None, scopes=('all',))"


def test_a_value_is_frozen() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is frozen"):
        del point.x
    assert point == Point(1)


def test_a_value_can_be_replaced_copied_pickled_and_matched() -> None:
    point = Point(1, 2, "s", "n")
    assert point.replace(y=3) == Point(1, 3, "s")
    with pytest.raises(TypeError):
        point.replace(z=1)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(point, protocol))
        assert (again, again.note) == (point, "n")
    assert copy.copy(point) == copy.deepcopy(point) == point
    match point:
        case Point(x, 2, note=note):
            assert (x, note) == (1, "n")
        case _:
            pytest.fail("no match")


def test_a_value_is_no_tuple() -> None:
    with pytest.raises(TypeError):
        iter(Point(1))  # type: ignore[call-overload]
