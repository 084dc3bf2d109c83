"""Whether a login can be kept here, how safely, and whether one is."""

from __future__ import annotations

import time
from typing import Final

import anyio.lowlevel

from .._identity import identity, store_kind
from .._io.lock import Locks
from .._io.store.file import FileStore
from .._io.store.keyring import KeyringStore
from .._io.store.ring import ON_DEMAND
from .._io.threads import run_in_daemon
from .._pending import PendingLogins
from .._sansio.errors import duration, quote
from .._stored import Kept, look
from ..errors import StoreError
from .finding import RESUME, Finding, of_error
from .offers import offers
from .patient import Patient
from .standing import is_good, lifetime

DEADLINE: Final = 8.0  # seconds
LOCK_DEADLINE: Final = 4.0  # seconds
NEVER_KEPT: Final = "doctor"  # a key that no login has


async def keyring(patient: Patient) -> Finding:
    """Asked for something that is not there, so that nothing is stored, as it would take to know
    whether a login can be kept.
    """
    name, settings = "keyring", patient.settings
    kind = None if settings is None else store_kind(settings)
    if kind not in {None, "auto", "keyring"}:
        return Finding(name, "skip", "not used, as configured")
    store = KeyringStore(named=kind == "keyring")
    try:
        await store.load(NEVER_KEPT)
    except StoreError as error:
        if kind == "keyring":
            return of_error(name, error)
        why, _, _ = str(error).partition("; ")
        text = f"{why}; logins are kept in files that only you can read, not encrypted"
        fix = "unlock or start a keyring; or say that files are meant: set tokenStore to file"
        if ON_DEMAND in why:
            fix += "; or use the keyring that is there: set tokenStore to keyring"
        return Finding(name, "warn", text, fix)
    text = f"{store.place.removeprefix('the keyring (').removesuffix(')')}: {store.safety}"
    if store.safety == "not encrypted":
        fix = "unset PYTHON_KEYRING_BACKEND, or choose a keyring that encrypts"
        return Finding(name, "warn", f"{text}; whoever reads your files can read your login", fix)
    return Finding(name, "ok", text)


async def files(patient: Patient) -> Finding:
    """A file is made and removed; what was there before is there afterwards."""
    del patient
    name, store = "files", FileStore()
    try:
        await store.probe()
    except StoreError as error:
        return of_error(name, error)
    return Finding(name, "ok", f"{store.place} can be written, by you alone")


async def lock(patient: Patient) -> Finding:
    name, directory = "lock", patient.directory / "locks"

    async def nothing() -> None:
        await anyio.lowlevel.checkpoint()

    try:
        await Locks(directory).exclusively(NEVER_KEPT, nothing, deadline=LOCK_DEADLINE)
    except StoreError as error:
        return of_error(name, error)
    return Finding(name, "ok", f"{directory} can be locked")


async def login(patient: Patient) -> Finding:
    """What is stored; see ``logged_in``."""
    name, settings = "login", patient.settings
    if settings is None or patient.setup is None:
        return Finding(name, "skip", "there is no endpoint")
    match settings.auth_type:
        case "NoAuth" | "Passthrough":
            return Finding(name, "ok", f"none is needed, authType is {settings.auth_type}")
        case "ClientSecret" | "ExternalCommand":
            return Finding(name, "ok", f"authType {settings.auth_type} needs none")
    if store_kind(settings) == "shared":
        kept = await _shared(patient)
    else:
        kept = await run_in_daemon(look, settings, deadline=DEADLINE)
    if kept.error is not None and kept.error.reason != "corrupt":
        return of_error(name, kept.error)
    if kept.record is None and kept.error is not None:
        return of_error(name, kept.error, "warn")
    await patient.talk.over.wait()
    target = patient.talk.target
    if target is not None and target.server is None:
        return Finding(name, "ok", "none is needed, the control plane wants none")
    at = time.time()
    if not is_good(kept.record, at):
        offered = await run_in_daemon(offers, settings, at, deadline=DEADLINE)
        if offered is not None and offered.tool is not None:
            text = f"nobody is logged in to {patient.setup.server}, but {offered.text}"
            return Finding(name, "warn", text)  # whether it works is not tried: that takes it over
    if kept.record is None:
        return Finding(name, "warn", f"nobody is logged in to {patient.setup.server}", LOGIN)
    if not is_good(kept.record, at):
        text = f"the login to {patient.setup.server} is over ({lifetime(kept.record, at)})"
        return Finding(name, "warn", text, LOGIN)
    who = f" as {quote(kept.record.subject)}" if kept.record.subject else ""
    return Finding(name, "ok", f"logged in{who}, in {kept.place}; {lifetime(kept.record, at)}")


LOGIN: Final = "log in"  # how this fix begins: the last line has the command for it


async def _shared(patient: Patient) -> Kept:
    assert patient.setup is not None
    vault = patient.setup.vault
    try:
        return Kept(await vault.load(first=True), vault.place)
    except StoreError as error:
        return Kept(None, vault.place, error)


async def pending(patient: Patient) -> Finding:
    name, settings = "begun login", patient.settings
    if settings is None or patient.setup is None:
        return Finding(name, "skip", "there is no endpoint")
    try:
        begun = await PendingLogins(patient.directory / "pending").load(identity(settings))
    except StoreError as error:
        return of_error(name, error, "warn")
    if begun is None:
        muted = await patient.setup.machine.muted(patient.setup.vault.key)
        if muted is None:
            return Finding(name, "ok", "none waits to be finished")
        text = (
            f"nobody answered a login {duration(muted[0])} ago, so what ran then asks for none now"
        )
        return Finding(name, "warn", text, LOGIN)
    left = begun.state.code.expires_at - time.time()
    if left <= 0:
        return Finding(name, "ok", "one was never finished, and its code has expired")
    text = f"one waits to be finished, for another {duration(left)}"
    return Finding(name, "warn", text, f"run: {RESUME}")
