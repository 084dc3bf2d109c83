"""
The keyring that there is: which one, what is known about it, and what it raises.

Nobody is asked for a password on stdin unawares: only the operating systems' own keyrings are
used unless another is named in keyring's own configuration.
"""

from __future__ import annotations

import binascii
import errno
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from attrs import define

from ..._sansio.errors import TEXT_MAX, StoreError, quote

SERVICE: Final = "flyteauth"
ITEM_MAX: Final = 1200  # characters; Windows takes 2,560 bytes of UTF-16
# As a file and the environment say it, and as a program does.
FILES: Final = 'tokenStore: file, or in Python token_store="file"'
INSTEAD: Final = f"or keep logins in files ({FILES})"


class Damaged(Exception):
    """What is there is not what was written. The text says so, and what to do."""


def unreadable() -> Damaged:
    return Damaged("does not hold a login that can be read; log in again")


@define
class Ring:
    """A backend of the package keyring, and what is known about it."""

    backend: Any
    proven: int = 0
    """The length of the longest item that came back as it had been written."""
    service: str = SERVICE

    @property
    def _module(self) -> str:
        return type(self.backend).__module__

    @property
    def is_own(self) -> bool:
        """Whether it is the operating system's."""
        return self._module.startswith("keyring.backends.")

    @property
    def label(self) -> str:
        return _KNOWN.get(self._module, (f"{self._module}.{type(self.backend).__name__}", ""))[0]

    @property
    def safety(self) -> str:
        if type(self.backend).__name__.startswith("Plaintext"):
            return "not encrypted"
        return _KNOWN.get(self._module, ("", f"only {self._module} knows whether it encrypts"))[1]

    @property
    def takes_long_items(self) -> bool:
        """As far as known: to try is the only way to know."""
        return self._module != "keyring.backends.Windows"

    def under(self, service: str) -> Ring:
        """The items of somebody else in the same keyring."""
        return Ring(self.backend, service=service)

    def get(self, name: str) -> str | None:
        return self.backend.get_password(self.service, name) or None

    def set(self, name: str, text: str) -> None:
        self.backend.set_password(self.service, name, text)

    def drop(self, name: str) -> None:
        self.backend.delete_password(self.service, name)

    def prove(self, name: str, text: str) -> None:
        """Write *text*, and read it back unless one of that length has come back before."""
        self.set(name, text)
        if len(text) > self.proven:
            if self.get(name) != text:
                raise Damaged(f"does not give back what it is given; repair it, {INSTEAD}")
            self.proven = len(text)

    def remove(self, name: str) -> None:
        """Make sure that the item is not there."""
        try:
            self.drop(name)
        except Exception as error:
            if reason_of(error) != "denied" or self.get(name) is not None:
                raise
        else:
            if self.get(name) is not None:
                raise Damaged(f"does not remove what it is told to; repair it, {INSTEAD}")

    def probe(self) -> None:
        name, text = "probe", "probe".ljust(ITEM_MAX - 1, "-") + "."
        self.set(name, text)
        if self.get(name) != text:
            raise Damaged(f"does not give back what it is given; repair it, {INSTEAD}")
        self.remove(name)
        self.proven = max(self.proven, len(text))


_KNOWN: Final = {
    "keyring.backends.macOS": ("macOS keychain", "encrypted by macOS"),
    "keyring.backends.Windows": ("Windows Credential Manager", "encrypted by Windows"),
    "keyring.backends.SecretService": ("SecretService", "encrypted with the keyring's password"),
    "keyring.backends.libsecret": ("libsecret", "encrypted with the keyring's password"),
    "keyring.backends.kwallet": ("KWallet", "encrypted with the wallet's password"),
}

_OWN: Final = {
    "darwin": ("macOS.Keyring",),
    "win32": ("Windows.WinVaultKeyring",),
}
_OWN_ELSEWHERE: Final = (
    "SecretService.Keyring",
    "libsecret.Keyring",
    "kwallet.DBusKeyring",
    "kwallet.DBusKeyringKWallet4",
)

# Others that never ask anything on stdin, for who wants a keyring whatever it is.
ON_DEMAND: Final = "with tokenStore: keyring"
_SILENT: Final = (
    "keyrings.alt.Windows.EncryptedKeyring",
    "keyrings.alt.Windows.RegistryKeyring",
    "keyrings.alt.file.PlaintextKeyring",
)


def choose(*, named: bool) -> Ring:
    """The keyring that keyring's own configuration names, or the operating system's.

    Not keyring.get_keyring(): that may choose one that asks for a password on stdin, or a chain
    of several, and it imports all there are.
    """
    try:
        core = importlib.import_module("keyring.core")
    except Exception as error:  # noqa: BLE001  # it imports all kinds of things
        raise _missing(f"the package keyring cannot be imported ({said(error)})") from None
    try:
        backend = _configured(core)
    except Exception as error:  # noqa: BLE001  # configuration may name anything
        raise _missing(
            "the keyring that PYTHON_KEYRING_BACKEND or keyringrc.cfg names cannot be used "
            f"({said(error)})"
        ) from None
    if backend is None:
        names = [f"keyring.backends.{name}" for name in _OWN.get(sys.platform, _OWN_ELSEWHERE)]
        backend = next(_viable(names), None)
    other = next(_viable(_SILENT), None) if backend is None else None
    if backend is None and named:
        backend = other
    if backend is None:
        raise _missing(f"no keyring of the system can be used here{_passed_over(other)}")
    if type(backend).__module__ in {"keyring.backends.fail", "keyring.backends.null"}:
        raise _missing("the keyring is switched off by PYTHON_KEYRING_BACKEND or keyringrc.cfg")
    return Ring(backend)


def _configured(core: Any) -> Any | None:
    """The backend that PYTHON_KEYRING_BACKEND or keyringrc.cfg names; None if it is a chain."""
    backend = core.load_env() if os.environ.get("PYTHON_KEYRING_BACKEND") else None
    if backend is None:
        backend = core.load_config()
    chained = type(backend).__module__ == "keyring.backends.chainer"
    return None if chained else backend


def _viable(names: list[str] | tuple[str, ...]) -> Iterator[Any]:
    """Those that work here, what their authors recommend most first."""
    found = []
    for name in names:
        module, _, kind = name.rpartition(".")
        with suppress(Exception):  # not installed, or not on this system: they raise anything
            backend = getattr(importlib.import_module(module), kind)
            found.append((float(backend.priority), backend))
    for _, backend in sorted(found, key=lambda one: one[0], reverse=True):
        with suppress(Exception):
            yield backend()


def _passed_over(other: Any | None) -> str:
    """Whoever sees that there is one hears why it is not used."""
    if other is None:
        return ""
    return f" ({Ring(other).label} is used only {ON_DEMAND})"


def _missing(why: str) -> StoreError:
    return StoreError(
        f"{why}; start one, or name one in PYTHON_KEYRING_BACKEND, {INSTEAD}",
        reason="missing",
    )


# What they raise.

_REASONS: Final = {
    "NoKeyringError": "missing",
    "SecretServiceNotAvailableException": "missing",
    "KeyringLocked": "locked",
    "LockedException": "locked",
    "PromptDismissedException": "locked",
    "InitError": "locked",
    "EOFError": "locked",  # nobody can type the password
    "Damaged": "corrupt",
}
_FULL_ERRNO: Final = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FULL_WINERROR: Final = {8, 14, 39, 112, 1783, 1816}  # 1783: more than 2,560 bytes

_TROUBLES: Final = {
    "missing": "is not there",
    "locked": "is locked",
    "denied": "cannot be used",
    "full": "does not take the login",
    "corrupt": "holds a login that cannot be decoded",
}
_ADVICE: Final = {
    "missing": "start it",
    "locked": "unlock it",
    "denied": "allow the access",
    "full": "make room in it",
    "corrupt": "log in again",
}


def explained(
    error: BaseException, place: str, *, secret: str = "", quotable: bool = True
) -> StoreError:
    """A StoreError that says what *error* means. *secret* is not in it, whatever *error* says."""
    reason = reason_of(error)
    if isinstance(error, Damaged):
        return StoreError(f"{place} {error}", reason=reason)
    what = f"{_TROUBLES[reason]} ({said(error, secret, quotable=quotable)})"
    return StoreError(f"{place} {what}; {_ADVICE[reason]}, {INSTEAD}", reason=reason)


def reason_of(error: BaseException) -> str:
    """The word for what went wrong."""
    for kind in type(error).__mro__:
        if kind.__name__ in _REASONS:
            return _REASONS[kind.__name__]
    if isinstance(error, UnicodeError | binascii.Error):
        return "corrupt"
    if getattr(error, "winerror", None) in _FULL_WINERROR:
        return "full"
    if isinstance(error, OSError) and error.errno in _FULL_ERRNO:
        return "full"
    text = _text(error)
    # "Interaction not allowed" of macOS, and how KWallet says that the prompt was dismissed.
    return "locked" if "-25308" in text or "Cancelled by user" in text else "denied"


def said(error: BaseException, secret: str = "", *, quotable: bool = True) -> str:
    """What *error* says, or only its kind.

    Foreign backends put command lines and lines of their files into errors; *secret* could be in
    any.
    """
    kind, text = type(error).__name__, _text(error)[:TEXT_MAX]
    if isinstance(error, OSError) and error.strerror and not _overlaps(error.strerror, secret):
        return quote(error.strerror.lower())
    runs_command = any(base.__name__ == "SubprocessError" for base in type(error).__mro__)
    if not text or not quotable or runs_command or _overlaps(text, secret):
        return quote(kind)
    return quote(f"{kind}: {text}")


def _overlaps(text: str, secret: str) -> bool:
    """Whether anything in *text* could be of *secret*."""
    width = 6
    return any(text[at : at + width] in secret for at in range(len(text) - width + 1))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # it is not ours
        return ""
