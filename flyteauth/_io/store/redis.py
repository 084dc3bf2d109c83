"""
A store that a fleet shares: records, and the lease on each, in Redis or Valkey.

Each call opens a connection of its own, in its own task, and closes it before it returns. That
costs about a millisecond, a few times in the life of a token; in return nothing is left to an
event loop that ends, to a forked child, or to a caller that is cancelled.

``exclusively`` is a lease: whoever dies in there blocks others until it runs out. It can also run
out under somebody alive (a long pause, a server that restarts), who then believes to be alone and
is not. Nothing is lost by that, because ``swap`` compares and replaces on the server, in one
step: whoever comes late finds the record changed, and changes nothing.

A user of the server needs the commands GET, SET, DEL and EVAL on the keys ``flyteauth:*``, and
SELECT for another database than 0.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from ..._sansio.errors import ConfigError, Error, StoreError
from ..._sansio.record import Record, is_same
from ..names import constant_length
from .envelope import seal, unseal
from .redis_url import check_url, parse_url

if TYPE_CHECKING:
    import ssl

    from ..tasks import Work
    from .redis_line import Ask

__all__ = ["RedisStore", "check_url"]

T = TypeVar("T")

PREFIX: Final = "flyteauth"
PREPARE_DEADLINE: Final = 30.0  # importing coredis, reading the trust store
RELEASE_DEADLINE: Final = 1.0
SLOW: Final = 1.0  # seconds that a failure may take before it is remembered
LEAVE_ALONE: Final = 10.0  # and for how many
PAUSE_MIN: Final = 0.005  # between two attempts to get the lease
PAUSE_MAX: Final = 0.25
# A token that cannot be refreshed is of no use after its end, except to say that it has ended.
MARGIN: Final = 24 * 3600.0
LIFETIME_MAX: Final = 10 * 365 * 24 * 3600.0

# Each script is one step for the server. ARGV[1] is what the caller believes to be there.
_SWAP: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class RedisStore:
    """Records on the server at *url*, for everybody who may use it.

    ``lease`` is how long a holder of ``exclusively`` that died blocks others, in seconds, and
    ``deadline`` how long the server may take to answer.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        lease: float = 30.0,
        deadline: float = 3.0,
    ) -> None:
        self._address = parse_url(url)
        self._ca_file = ca_file
        self._lease = lease
        self._deadline = deadline
        self._prepared = False
        self._failure: StoreError | None = None
        self._left_alone_until = 0.0
        self._context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"RedisStore({self._address.where!r})"

    @property
    def place(self) -> str:
        return f"redis at {self._address.where}"

    @property
    def slot(self) -> tuple[str | int, ...]:
        address = self._address
        return (self.name, address.path or address.host, address.port, address.db, PREFIX)

    async def probe(self) -> None:
        name, holder = _name(secrets.token_hex(16), "probe"), secrets.token_hex(16)

        async def talk(ask: Ask, scope: anyio.CancelScope) -> None:
            await ask("SET", name, holder, "NX", "PX", 1000)
            await ask("EVAL", _RELEASE, 1, name, holder)

        await self._talk(talk)

    async def load(self, key: str) -> Record | None:
        async def talk(ask: Ask, scope: anyio.CancelScope) -> object:
            return await ask("GET", _name(key, "record"))

        return self._parse(key, await self._talk(talk))

    async def save(self, key: str, record: Record) -> None:
        text, lifetime = seal(key, record, self.place), _lifetime(record)
        options = () if lifetime is None else ("EX", lifetime)

        async def talk(ask: Ask, scope: anyio.CancelScope) -> None:
            await ask("SET", _name(key, "record"), text, *options)

        await self._talk(talk)

    async def swap(self, key: str, old: Record | None, new: Record) -> bool:
        """See Store.swap. What is compared on the server is the whole value as it was read, so
        whoever has lost the lease meanwhile cannot replace what the next holder wrote.
        """
        name, text, lifetime = (
            _name(key, "record"),
            seal(key, new, self.place),
            _lifetime(new) or "",
        )

        async def talk(ask: Ask, scope: anyio.CancelScope) -> bool:
            while True:
                raw = await ask("GET", name)
                if not is_same(self._parse(key, raw), old):
                    return False
                known = raw if isinstance(raw, bytes) else b""
                if await ask("EVAL", _SWAP, 1, name, known, text, lifetime):
                    return True

        return await self._talk(talk)

    async def delete(self, key: str) -> None:
        async def talk(ask: Ask, scope: anyio.CancelScope) -> None:
            await ask("DEL", _name(key, "record"))

        await self._talk(talk)

    async def exclusively(
        self, key: str, function: Callable[[], Awaitable[T]], *, deadline: float
    ) -> T:
        """See Store.exclusively. The lease is renewed for *deadline* seconds at most. If it is
        lost, *function* goes on: the answer that it waits for may be the only copy of a token.
        """
        from ..tasks import start

        turn = _Turn(_name(key, "lock"), secrets.token_hex(16))
        awaits = True
        try:
            await self._take(turn, deadline)
            # Not in a task group around the function, which would change what it raises.
            turn.renewing = start(self._renew, turn, deadline)
            return await function()
        except GeneratorExit:  # the event loop has gone: nothing can be awaited any more
            awaits = False
            raise
        finally:
            if awaits:
                await self._leave(turn)

    async def aclose(self) -> None:
        """Nothing is kept open between calls."""

    # The lease.

    async def _take(self, turn: _Turn, deadline: float) -> None:
        until = anyio.current_time() + deadline
        lease = _milliseconds(self._lease)

        async def talk(ask: Ask, scope: anyio.CancelScope) -> None:
            pause = PAUSE_MIN
            while True:
                turn.may_be_ours = True  # if no answer comes, nobody knows
                if await ask("SET", turn.name, turn.holder, "NX", "PX", lease) is not None:
                    return
                turn.may_be_ours = False
                left = until - anyio.current_time()
                if left <= 0:
                    raise self._busy(deadline)
                # Of random length, so that waiters do not keep step.
                wait = min(left, pause * (1 + secrets.randbelow(256) / 255) / 2)
                scope.deadline = anyio.current_time() + wait + self._deadline
                await anyio.sleep(wait)
                pause = min(2 * pause, PAUSE_MAX)

        await self._talk(talk)

    async def _renew(self, turn: _Turn, seconds: float) -> None:
        until = anyio.current_time() + seconds
        lease = _milliseconds(self._lease)

        async def talk(ask: Ask, scope: anyio.CancelScope) -> object:
            return await ask("EVAL", _RENEW, 1, turn.name, turn.holder, lease)

        with turn.over:
            await anyio.sleep(self._lease / 3)
            while anyio.current_time() < until:
                with suppress(Error):  # perhaps the next attempt comes in time
                    if not await self._talk(talk):
                        return  # it is lost, or somebody else's
                await anyio.sleep(self._lease / 3)

    async def _leave(self, turn: _Turn) -> None:
        async def talk(ask: Ask, scope: anyio.CancelScope) -> None:
            await ask("EVAL", _RELEASE, 1, turn.name, turn.holder)

        with anyio.CancelScope(shield=True):
            if turn.renewing is not None:
                turn.over.cancel()
                with anyio.move_on_after(RELEASE_DEADLINE), suppress(Exception):
                    await turn.renewing.wait()
            if turn.may_be_ours:
                with suppress(Error):  # then it runs out
                    await self._talk(talk, RELEASE_DEADLINE)

    def _busy(self, seconds: float) -> StoreError:
        return StoreError(
            f"another process has kept this login busy for {seconds:g} s, says {self.place}; "
            "try again in a moment",
            reason="busy",
        )

    # Values.

    def _parse(self, key: str, raw: object) -> Record | None:
        if raw is None:
            return None
        return unseal(key, raw if isinstance(raw, bytes) else b"", self.place)

    # Connections.

    async def _talk(
        self,
        talk: Callable[[Ask, anyio.CancelScope], Awaitable[T]],
        deadline: float | None = None,
    ) -> T:
        """What *talk* gets from the server. It may move the deadline of the scope.

        A server that took long to fail is left alone for a while: the calls of one renewal would
        wait for it one after the other.
        """
        if time.monotonic() < self._left_alone_until and self._failure is not None:
            raise StoreError(str(self._failure), reason=self._failure.reason)
        begun = time.monotonic()
        try:
            return await self._talk_now(talk, deadline)
        except StoreError as error:
            if error.reason in {"timeout", "unreachable"} and time.monotonic() - begun > SLOW:
                self._failure, self._left_alone_until = error, time.monotonic() + LEAVE_ALONE
            raise

    async def _talk_now(
        self, talk: Callable[[Ask, anyio.CancelScope], Awaitable[T]], deadline: float | None
    ) -> T:
        await self._prepare()
        from .redis_line import converse

        ours = _ours.set(True)
        try:
            with anyio.move_on_after(self._deadline if deadline is None else deadline) as scope:
                return await converse(self._address, self._context, lambda ask: talk(ask, scope))
        except Error:
            raise
        except Exception as error:  # noqa: BLE001  # whatever strange bytes make of the library
            raise self._explain(error) from None
        finally:
            _ours.reset(ours)
        raise self._timeout()

    async def _prepare(self) -> None:
        if self._prepared:
            return
        from ..threads import run_in_daemon

        try:
            await run_in_daemon(self._prepare_sync, deadline=PREPARE_DEADLINE)
        except TimeoutError:
            raise self._timeout() from None

    def _prepare_sync(self) -> None:
        """What takes time, once. Without a lock, which a fork could leave locked."""
        import encodings.idna  # noqa: F401  # looking up a name imports it late

        from ..tls import tls_context

        try:
            from . import redis_line  # noqa: F401
        except ImportError:
            raise ConfigError(
                "logins are to be kept in Redis, and the library for that is missing; "
                "install flyteauth[redis]",
                reason="redis",
            ) from None
        logging.getLogger("coredis").addFilter(_is_not_ours)
        if self._address.tls:
            self._context = tls_context(self._ca_file, verify=True)
        self._prepared = True

    # What went wrong.

    def _timeout(self) -> StoreError:
        text = "does not answer; check the server and the way to it"
        if self._address.tls:
            text += ", and that it speaks TLS"
        return StoreError(f"{self.place} {text}", reason="timeout")

    def _explain(self, error: Exception) -> StoreError:
        import ssl

        from ..explain import explain_system
        from .redis_line import explain_reply

        causes = list(_causes(error))
        reason = "unreachable"
        for cause in causes:
            if (known := explain_reply(cause)) is not None:
                reason, text = known
                break
            if isinstance(cause, TimeoutError) and not cause.errno:
                return self._timeout()
            if isinstance(cause, ssl.SSLError) and not isinstance(
                cause, ssl.SSLEOFError | ssl.SSLZeroReturnError
            ):
                text = _explain_tls(cause)
                break
            if isinstance(cause, ssl.SSLError | ConnectionResetError | BrokenPipeError):
                continue
            if isinstance(cause, OSError) and cause.errno:
                why = explain_system(cause)
                text = f"cannot be reached ({why}); check its URL, and that the server runs"
                break
        else:
            if isinstance(causes[-1], AssertionError | LookupError | TypeError | ValueError):
                text = "does not answer as Redis does; check host and port in its URL"
            else:
                text = "closed the connection; check the server, and that its URL begins with "
                text += "redis:// for a server without TLS, and rediss:// for one with it"
        return StoreError(f"{self.place} {text}", reason=reason)


class _Turn:
    """One wait for the lease of *name*, and its possession."""

    def __init__(self, name: str, holder: str) -> None:
        self.name = name
        self.holder = holder
        self.may_be_ours = False
        self.renewing: Work[None] | None = None
        self.over = anyio.CancelScope()


def _explain_tls(error: ssl.SSLError) -> str:
    from ..explain import explain_tls

    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return "speaks no TLS; for a server without it, the URL begins with redis://"
    return f"cannot be trusted ({explain_tls(error)}); name its certificate authority"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """*error* and what led to it, without what the caller may have been handling."""
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _causes(member)
    yield from _causes(error.__cause__)


def _name(key: str, what: str) -> str:
    """A name of constant length. The braces keep what belongs to one login together in a cluster
    (the part in them decides where a key goes).
    """
    return f"{PREFIX}:{{{constant_length(key)}}}:{what}"


def _lifetime(record: Record) -> int | None:
    """For how many seconds the server keeps *record*; None is for ever."""
    token = record.token
    if token.refresh_token is not None or token.expires_at is None:
        return None
    seconds = max(0.0, token.expires_at - time.time()) + MARGIN
    return int(seconds) if seconds < LIFETIME_MAX else None


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * seconds))


# Logs.

_ours: ContextVar[bool] = ContextVar("flyteauth_redis", default=False)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """What fails is logged by coredis with its traceback. Our callers get an error instead."""
    return not _ours.get()
