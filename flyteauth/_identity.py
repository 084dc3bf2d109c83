"""Who is logged in where, and what keeps that: as far as the configuration alone says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from ._sansio.value import Value

if TYPE_CHECKING:
    from .config import Settings


class Key(Value):
    """What the key of a record says. ``where`` is the endpoint, with http:// where it has no TLS;
    ``kind`` is person, service, or command and a digest of it.
    """

    where: str | None
    issuer: str | None
    kind: str
    client_id: str | None
    scopes: tuple[str, ...] | None
    audience: str | None
    account: str | None

    @property
    def text(self) -> str:
        """The key itself, which stores know the record by."""
        return json.dumps(list(vars(self).values()))


def key_of(settings: Settings) -> Key:
    """The key of the record that *settings* ask for, found without asking anybody."""
    endpoint, scheme = settings.endpoint, "http://" if settings.plain_host else ""
    kind = "service" if settings.is_service else "person"
    if settings.auth_type == "ExternalCommand":
        import hashlib

        # Digested, because a command line may hold what nobody else should read.
        command = "\0".join(settings.command or ())
        kind = f"command {hashlib.sha256(command.encode('utf-8', 'replace')).hexdigest()}"
    return Key(
        where=None if endpoint is None else scheme + endpoint.key,
        issuer=settings.issuer,
        kind=kind,
        client_id=settings.client_id,
        scopes=None if settings.scopes is None else tuple(sorted(settings.scopes)),
        audience=settings.audience,
        account=settings.account,
    )


def identity(settings: Settings) -> str:
    """The same as text."""
    return key_of(settings).text


def parse_key(text: str) -> Key | None:
    """What *text* says, or None if it is not a key."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, list) or len(members) != len(_MEMBERS):
        return None
    if not all(fits(member) for fits, member in zip(_MEMBERS, members, strict=True)):
        return None
    where, issuer, kind, client_id, scopes, audience, account = members
    scopes = None if scopes is None else tuple(scopes)
    return Key(where, issuer, kind, client_id, scopes, audience, account)


def _is_text(member: object) -> bool:
    return isinstance(member, str)


def _is_text_or_none(member: object) -> bool:
    return isinstance(member, str | None)


def _are_texts_or_none(member: object) -> bool:
    return member is None or (isinstance(member, list) and all(map(_is_text, member)))


_MEMBERS: Final[tuple[Callable[[object], bool], ...]] = (
    _is_text_or_none,
    _is_text_or_none,
    _is_text,
    _is_text_or_none,
    _are_texts_or_none,
    _is_text_or_none,
    _is_text_or_none,
)

StoreKind = Literal["memory", "file", "keyring", "auto", "shared"]


def store_kind(settings: Settings) -> StoreKind:
    """A person's login outlives the program; a service's token need not (SEC-08). "auto" is the
    keyring, and where that cannot be used, files.
    """
    match settings.token_store:
        case None if settings.is_service:
            return "memory"
        case None if settings.disable_keyring:
            return "file"
        case None:
            return "auto"
        case "memory" | "file" | "keyring" as kind:
            return kind
        case _:
            return "shared"
