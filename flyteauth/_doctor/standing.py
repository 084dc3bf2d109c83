"""What is configured and stored, as ``status`` and ``accounts`` tell it, without an event loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._identity import identity, store_kind
from .._io import alarm
from .._io.store.file import DEADLINE
from .._sansio.errors import duration, quote
from .._sansio.value import Value
from .._stored import Kept, look, settings_of
from ..errors import ConfigError, Error, StoreError

if TYPE_CHECKING:
    from .._sansio.keyring_layouts import Tool
    from .._sansio.record import Record
    from .._sansio.token import Token
    from ..config import Settings
    from .offers import Offers

PERSONAL: Final = frozenset({"Pkce", "DeviceFlow"})  # where a person logs in
SHARED_DEADLINE: Final = 10.0  # seconds for a store on another host
USED, LOST, ABSENT = "+", "-", "·"


class Standing(Value, hidden=("environ",)):
    """What was found out. ``error``: why it cannot be told whether somebody is logged in.
    ``offers``: what other tools have instead, where nobody is and they share their logins.
    ``begun_for``: the seconds for which a login that was begun can still be finished, where nobody
    is logged in.
    """

    settings: Settings
    kept: Kept | None
    error: Error | None
    environ: Mapping[str, str]
    asked: str | None
    at: float
    offers: Offers | None = None
    begun_for: float | None = None

    @property
    def server(self) -> str:
        endpoint = self.settings.endpoint
        return endpoint.key if endpoint is not None else str(self.settings.issuer or "")

    @property
    def record(self) -> Record | None:
        return None if self.kept is None else self.kept.record

    @property
    def needs_login(self) -> bool:
        """Whether a person has to be logged in before a call can be authorised."""
        return self.settings.auth_type in PERSONAL

    @property
    def is_authorised(self) -> bool:
        """Whether a call could be authorised without a person."""
        return self.error is None and (not self.needs_login or is_good(self.record, self.at))

    @property
    def _taken_from(self) -> Tool | None:
        """The tool whose login becomes ours at the first use, if the server says that it works."""
        return None if self.offers is None else self.offers.tool

    @property
    def title(self) -> str:
        settings, server = self.settings, self.server
        match settings.auth_type:
            case "NoAuth":
                return f"{server} is used without credentials."
            case "Passthrough":
                return f"Calls to {server} bring credentials of their own."
            case "ExternalCommand":
                return f"Tokens for {server} come from a command; nobody logs in."
            case "ClientSecret":
                return f"A service calls {server} by its client secret; nobody logs in."
        if self.error is not None:
            return f"Whether you are logged in to {server} cannot be told."
        if (tool := self._taken_from) is not None:
            return f"Not logged in to {server}; {tool} has a login that may be taken over."
        if self.begun_for is not None:
            return f"Not logged in to {server} yet: a login was begun."
        if self.record is None:
            return f"Not logged in to {server}."
        if not self.is_authorised:
            return f"The login to {server} is over."
        who = quote(self.record.subject or "")
        return f"Logged in to {server} as {who}." if who else f"Logged in to {server}."

    def rows(self) -> Iterator[tuple[str, str]]:
        """What there is to say of it, in pairs of a name and a text."""
        settings = self.settings
        yield "endpoint", settings.endpoint.url if settings.endpoint else str(settings.issuer)
        how = "the default" if not settings.auth_type_given else f"from {self._source('auth_type')}"
        yield "authType", f"{settings.auth_type}, {how}"
        if settings.is_service and settings.client_id is not None:
            yield "client", settings.client_id
        if settings.account is not None:
            yield "account", settings.account
        if self.record is not None and self.kept is not None:
            yield "token", lifetime(self.record, self.at)
            yield "kept in", self.kept.place
            yield "safety", safety(self.kept.place, settings)
        if self.offers is not None:
            yield "shared", self.offers.text
        if self.begun_for is not None:
            yield "begun", f"its code lasts {duration(self.begun_for)} more"
        yield "config", "no file" if settings.config_file is None else str(settings.config_file)

    def _source(self, name: str) -> str:
        from .sources import spoken

        return spoken(self.settings.sources[name])

    # All of it.

    def explanation(self, resume: str) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
        """Titles, and rows below them: a mark, a line, and lines that belong to it. *resume* is
        the command that goes on with a login.
        """
        from . import sources

        yield (
            "Settings that were given, and what each one won over",
            [
                (
                    USED,
                    f"{x.name}: {x.value}",
                    f"from {x.source}",
                    *(f"over {lost}" for lost in x.over),
                )
                for x in sources.values(self.settings, self.environ)
            ]
            or [(ABSENT, "none: everything is the default")],
        )
        yield (
            "Configuration files, in the order they are looked at",
            [(_mark(line), line) for line in dict.fromkeys(self.settings.considered)]
            or [(ABSENT, "none")],
        )
        if self.settings.unknown_keys:
            yield (
                "Keys in the configuration that nobody reads",
                [(LOST, str(key)) for key in self.settings.unknown_keys],
            )
        seen = sources.variables(self.settings, self.environ, asked=self.asked)
        marks = {"used": USED, "lost": LOST, "ignored": LOST}
        yield (
            "Environment variables that are set",
            [(marks[x.state], f"{x.name}: {x.state} ({x.why})") for x in seen]
            or [(ABSENT, "none")],
        )
        yield "Where a login may be kept", self._stores()
        yield "The login", [(ABSENT, line) for line in self._facts(resume)]

    def _stores(self) -> list[tuple[str, ...]]:
        if self.kept is None:
            return [(ABSENT, "nowhere to look: there is no endpoint")]
        from .stores import stores

        return stores(self.settings, self.kept, self._source)

    def _facts(self, resume: str) -> Iterator[str]:
        if self.server:
            yield self.title
        if self.record is not None and self.kept is not None:
            yield f"token: {lifetime(self.record, self.at)}"
            yield f"kept in {self.kept.place}: {safety(self.kept.place, self.settings)}"
        if self.offers is not None:
            yield self.offers.text
        if self.kept is not None:
            from .stores import notes

            yield from notes(self.settings, self.at, resume)
        if has_leftover():
            yield f"{LEFTOVER} is there: {LEFTOVER_ADVICE}"

    def to_json(self, resume: str) -> dict[str, Any]:
        """All of it for a program; times are POSIX seconds. See ``explanation``."""
        from . import sources

        settings, record = self.settings, self.record
        endpoint = None if settings.endpoint is None else settings.endpoint.url
        return {
            "authorised": self.is_authorised,
            "logged_in": record is not None,
            "endpoint": endpoint,
            "issuer": settings.issuer,
            "auth_type": settings.auth_type,
            "auth_type_source": self._source("auth_type"),
            "account": settings.account,
            "subject": None if record is None else record.subject,
            "obtained_at": None if record is None else record.token.obtained_at,
            "expires_at": None if record is None else record.token.expires_at,
            "renews_itself": record is not None and record.token.refresh_token is not None,
            "taken_over_from": self._taken_from,
            "scopes": None if record is None else list(record.token.scopes),
            "place": None if self.kept is None else self.kept.place,
            "safety": None
            if self.kept is None or record is None
            else safety(self.kept.place, settings),
            "config_file": None if settings.config_file is None else str(settings.config_file),
            "settings": [vars(x) for x in sources.values(settings, self.environ)],
            "files": list(settings.considered),
            "unknown_keys": [str(key) for key in settings.unknown_keys],
            "variables": [
                vars(x) for x in sources.variables(settings, self.environ, asked=self.asked)
            ],
            "stores": [{"used": mark == USED, "text": text} for mark, text, *_ in self._stores()],
            "facts": list(self._facts(resume)),
        }


def find_out(asked: str | None, given: Mapping[str, Any], environ: Mapping[str, str]) -> Standing:
    """Whether somebody is logged in, as files and keyring say; ``error`` if those cannot be read.

    Raises ConfigError for settings that cannot be.
    """
    settings = settings_of(given, environ, asked)
    kept: Kept | None = None
    error: Error | None = None
    try:
        settings.require_server()
    except ConfigError as problem:
        error = problem
    else:
        kept = _ask_shared(settings) if store_kind(settings) == "shared" else look(settings)
        if kept.error is not None and kept.error.reason != "corrupt":
            error = kept.error if settings.auth_type in PERSONAL else None
    standing = Standing(settings, kept, error, environ, asked, time.time())
    if error is not None or standing.is_authorised:
        return standing
    standing = standing.replace(begun_for=_begun_for(settings, standing.at))
    if not settings.shared_logins:
        return standing
    from .offers import offers

    return standing.replace(offers=offers(settings, standing.at))


def _begun_for(settings: Settings, at: float) -> float | None:
    """Seconds that are left of a login that was begun; None if none was, which is told without
    importing what reads one.
    """
    from .._io.folder import home
    from .._io.names import constant_length

    def look() -> float | None:
        if not os.path.lexists(home() / "pending" / constant_length(identity(settings))):
            return None
        from .stores import pending_for

        return pending_for(settings, at)

    try:
        return alarm.call(look, deadline=DEADLINE)
    except TimeoutError:
        return None


def _ask_shared(settings: Settings) -> Kept:
    """What is in a store on another host, which is the one thing that takes a network."""
    import anyio

    from .._io.store.redis import RedisStore

    assert settings.token_store is not None
    store = RedisStore(settings.token_store, ca_file=settings.ca_file)

    async def load() -> Record | None:
        try:
            with anyio.fail_after(SHARED_DEADLINE):
                return await store.load(identity(settings))
        except TimeoutError:
            raise StoreError(
                f"{store.place} does not answer; try again", reason="timeout"
            ) from None
        finally:
            await store.aclose()

    try:
        return Kept(anyio.run(load), store.place)
    except StoreError as error:
        return Kept(None, store.place, error)


def is_good(record: Record | None, at: float) -> bool:
    """Whether *record* has a token that is good at *at*, or one to get the next by."""
    return record is not None and may_work(record.token, at)


def may_work(token: Token, at: float) -> bool:
    return token.expires_at is None or token.expires_at > at or token.refresh_token is not None


def lifetime(record: Record, at: float) -> str:
    """Since when and until when, in words."""
    token = record.token
    end = lasting(token.expires_at, at)
    over = token.expires_at is not None and token.expires_at <= at
    renewal = "renews itself" if token.refresh_token is not None else "then you log in again"
    ends = f"{'ended' if over else 'ends'} {end}"
    return f"obtained {lasting(token.obtained_at, at)}, {ends}; {renewal}"


def lasting(expires_at: float | None, at: float) -> str:
    """When something ends, in words: "in 29 min"."""
    if expires_at is None:
        return "when the server says so"
    left = expires_at - at
    return f"in {duration(left)}" if left >= 0 else f"{duration(-left)} ago"


def safety(place: str, settings: Settings) -> str:
    """How safe a login is in *place*, in plain words."""
    if place.startswith("the keyring"):
        from .._io.store.keyring import KeyringStore

        return KeyringStore(named=store_kind(settings) == "keyring").safety
    if place.startswith("redis at "):
        return "readable by everybody who can use that server"
    if store_kind(settings) == "file":
        return "not encrypted, in files only you can read, as configured"
    return "not encrypted, in files only you can read: no keyring of the system could be used"


LEFTOVER: Final = "~/.unionai"
LEFTOVER_ADVICE: Final = (
    "an older client of Union has left it behind; remove it, unless you still use that client"
)


def has_leftover() -> bool:
    try:
        return Path(LEFTOVER).expanduser().is_dir()
    except (OSError, RuntimeError):
        return False


def _mark(line: str) -> str:
    return LOST if "passed over" in line else ABSENT if line.endswith(": not there") else USED
