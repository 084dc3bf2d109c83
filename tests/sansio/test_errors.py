"""Messages are one line, escaped, and cut; errors travel between processes."""

from __future__ import annotations

import copy
import pickle
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given, strategies as st

from flyteauth import errors as public
from flyteauth._sansio import errors
from flyteauth._sansio.errors import (
    TEXT_MAX,
    ConfigError,
    Error,
    Expired,
    FlowError,
    InsufficientScope,
    InteractionRequired,
    InvalidResponse,
    MissingMetadata,
    OAuth2Error,
    ReauthRequired,
    StoreError,
    UnexpectedEvent,
    Unreachable,
    bounded,
    cut,
    duration,
    escape,
    quote,
)

from . import strategies


@pytest.mark.req("ERR-01")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ü and 漢字", "plain, ü and 漢字"),
        ("\x1b]0;pwn\x07", "\\x1b]0;pwn\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x7f\x80\x9b", "\\x7f\\x80\\x9b"),
        ("\u202e\u2066\u200b\ufeff", "\\u202e\\u2066\\u200b\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (119.4, "119 s"),
        (120.0, "2 min"),
        (3600.0, "60 min"),
        (7199.0, "120 min"),
        (7200.0, "2 h"),
        (172_799.0, "48 h"),
        (172_800.0, "2 days"),
        (31_536_000.0, "365 days"),
    ],
)
def test_a_length_of_time_is_told_in_a_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.req("ERR-01")
@given(strategies.texts)
def test_any_text_becomes_one_harmless_line(text: str) -> None:
    shown = quote(text)
    assert len(shown) <= TEXT_MAX == 300
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    assert quote(shown) == shown
    assert len(shown.splitlines()) <= 1


@pytest.mark.req("ERR-01")
def test_a_long_text_is_cut_and_says_so() -> None:
    assert quote("x" * 300) == "x" * 300
    assert quote("x" * 301) == "x" * 299 + "…"
    assert quote("\x1b" * 100) == ("\\x1b" * 75)[:299] + "…"
    assert quote("abcdef", 4) == "abc…"


@pytest.mark.req("ERR-04")
@pytest.mark.parametrize("text", ["[link=https://evil]x[/link]", "%s %d", "{x} {0}", "<b>x</b>"])
def test_markup_and_format_are_plain_text(text: str) -> None:
    assert text in str(OAuth2Error("access_denied", text))


@pytest.mark.req("ERR-01")
def test_a_name_is_cut_where_it_comes_in_and_escaped_where_it_is_shown() -> None:
    assert cut("x" * 300) == "x" * 300
    assert cut("x" * 301) == "x" * 299 + "…"
    assert cut("\x1b", 1) == "\x1b"
    assert cut("abcdef", 4) == "abc…"


@pytest.mark.req("ERR-01")
def test_of_a_long_message_the_beginning_and_the_end_stay() -> None:
    whole = "x" * 1000 + "y" * 1000
    assert bounded(whole) == whole
    longer = bounded("x" * 1000 + "-" + "y" * 1000)
    assert longer == "x" * 999 + "…" + "y" * 1000
    assert bounded("\x1b" * 501) == ("\\x1b" * 250)[:999] + "…" + "\\x1b" * 250
    assert bounded("\x1b" * 500) == "\\x1b" * 500
    said = str(ConfigError("this is wrong" + "\x1b" * 1_000_000 + "; set that"))
    assert said.startswith("this is wrong\\x1b")
    assert said.endswith("\\x1b; set that")
    assert len(said) == 2000


def every(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


KINDS = sorted(set(every(Error)) - {UnexpectedEvent}, key=lambda kind: kind.__name__)


@pytest.mark.req("ERR-01")
@given(st.sampled_from(KINDS), strategies.texts, strategies.texts, st.integers(1, 5000))
def test_any_text_in_any_error_is_one_harmless_line_of_bounded_length(
    kind: type[Error], text: str, other: str, times: int
) -> None:
    """Even where somebody has forgotten to cut it before."""
    many, more = text * times, other * times
    if kind is OAuth2Error:
        error: Error = OAuth2Error(many, more, many)
    elif kind is InsufficientScope:
        error = InsufficientScope((many, more))
        assert all(len(scope) <= TEXT_MAX for scope in error.scopes)
    else:
        error = kind(many, reason=more)
    shown = [(str(error), 2000), (error.reason, TEXT_MAX)]
    if isinstance(error, OAuth2Error):
        shown += [(error.error, TEXT_MAX), (error.description, TEXT_MAX)]
    for said, most in shown:
        assert len(said) <= most
        assert escape(said) == said
        assert len(said.splitlines()) <= 1
    assert len(getattr(error, "uri", "")) <= TEXT_MAX
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


ERRORS = [
    ConfigError("set this", reason="key"),
    Expired("too late"),
    FlowError("over"),
    InsufficientScope(("all\x1b", "more")),
    InteractionRequired("nobody there"),
    InvalidResponse("odd", reason="status"),
    MissingMetadata("no endpoint", reason="token_endpoint"),
    OAuth2Error("access_denied", "no\x1b", "https://as/why"),
    OAuth2Error("invalid_target", hint="set admin.audience"),
    ReauthRequired("log in again"),
    StoreError("locked", reason="locked"),
    UnexpectedEvent(1, "two"),
    Unreachable("down", reason="connect", retry_after=2.0, sent=True),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_in_another_process(error: Error) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_tree_of_errors_has_one_root(error: Error) -> None:
    assert isinstance(error, Error)
    assert getattr(public, type(error).__name__) is type(error)
    flow = (
        OAuth2Error,
        InvalidResponse,
        Expired,
        Unreachable,
        MissingMetadata,
        InsufficientScope,
    )
    assert isinstance(error, FlowError) == isinstance(error, (*flow, FlowError))


def test_every_error_of_the_core_is_public() -> None:
    core = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert core == set(public.__all__)


@pytest.mark.req("ERR-01")
def test_a_message_is_escaped_wherever_it_comes_from() -> None:
    assert str(ConfigError("a\nb", reason="r")) == "a\\nb"
    assert ConfigError("a", reason="r").reason == "r"
    assert Error("a").reason == ""


@pytest.mark.req("ERR-01")
def test_an_oauth_error_names_code_description_and_what_to_do() -> None:
    error = OAuth2Error("invalid_scope", "no\nway", "https://as/e")
    assert error.error == error.reason == "invalid_scope"
    assert error.description == "no\\nway"
    assert error.uri == "https://as/e"
    assert str(error) == (
        "the authorization server answered invalid_scope (no\\nway); "
        "check admin.scopes in the configuration"
    )
    assert str(OAuth2Error("new_code")).endswith("; log in again, or ask whoever runs the server")
    assert str(OAuth2Error("x", hint="do this")) == ("the authorization server answered x; do this")


def test_an_unexpected_event_names_both_sides() -> None:
    assert str(UnexpectedEvent(1, "two")) == "int cannot take str; please report this bug"


def test_unreachable_says_when_and_whether() -> None:
    error = Unreachable("down")
    assert (error.reason, error.retry_after, error.sent) == ("", None, False)


def test_an_oauth_error_alone_says_no_more() -> None:
    error = OAuth2Error("x")
    assert (error.description, error.uri, error.hint) == ("", "", "")
    assert OAuth2Error("x", hint="do this").hint == "do this"
