"""Whether a call is let in: a token is got, and the control plane asked whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import anyio
from attrs import evolve

from .._io.presenter import Silent
from .._sansio.errors import quote
from ..errors import Error, FlowError
from ..session import Identity, Session
from . import keeping
from .finding import Finding, of_error
from .patient import Patient
from .standing import PERSONAL

NAME: Final = "access"
OURSELVES: Final = "flyteauth doctor"
# What to do about a login that is not taken, where that is said to us: a new one, or any other.
_WITHOUT_US: Final = {
    True: "ask whoever runs the control plane",
    False: "log in again, or if you just have, ask whoever runs the control plane",
}
_PROXY: Final = "proxy-authorization"
DEADLINE: Final = 9.0  # seconds; less than the examination's, to close what was opened


async def access(patient: Patient) -> Finding:
    """One call as any program would make it, where that takes no person. A login that is ageing,
    expired or refused may be renewed for it, and what was renewed is stored: that is upkeep, and
    no login.
    """
    settings = patient.settings
    if settings is None or patient.setup is None:
        return Finding(NAME, "skip", "there is no endpoint")
    finding = None
    with anyio.move_on_after(DEADLINE):
        finding = await _obstacle(patient) or await _call(patient)
    if finding is not None:
        return finding
    fix = "try again later"
    if settings.auth_type == "ExternalCommand":
        fix = "run the command of admin.command by hand, to see what it waits for"
    return Finding(NAME, "fail", f"no token or no answer within {DEADLINE:g} s", fix)


async def _obstacle(patient: Patient) -> Finding | None:
    """Why nothing is asked, if it is not: what other checks say is not waited for once more."""
    assert patient.settings is not None
    kind = patient.settings.auth_type
    if kind in {"NoAuth", "Passthrough"}:
        return Finding(NAME, "skip", f"no token is ours to get, authType is {kind}")
    await patient.talk.over.wait()
    target = patient.talk.target
    if target is None:
        return Finding(NAME, "skip", "the login server does not answer as it should, see above")
    if target.server is None and kind != "ExternalCommand":
        return Finding(NAME, "skip", "the control plane wants no token")
    if kind in PERSONAL and (await keeping.login(patient)).state != "ok":
        return Finding(NAME, "skip", "there is no login to try")
    return None


async def _call(patient: Patient) -> Finding:
    assert patient.settings is not None
    session = Session.from_config(patient.asked, presenter=Silent(), **patient.given)
    try:
        async with session:
            if await session.token() is None:
                return Finding(NAME, "skip", "the control plane wants no token")
            if patient.settings.endpoint is None:
                return Finding(NAME, "ok", "there is a token, and no control plane to try it on")
            return _taken(await _identity(session), await session.headers())
    except Error as error:
        finding = of_error(NAME, error)
        if OURSELVES in finding.fix:
            return evolve(finding, fix=_WITHOUT_US[finding.fix.startswith("run: ")])
        if patient.settings.auth_type in PERSONAL or not finding.fix.startswith(keeping.LOGIN):
            return finding
        fix = "check that these credentials are for this endpoint, and their scopes and audience"
        return Finding(NAME, "fail", finding.text, fix)  # nobody logs in there


async def _identity(session: Session) -> Identity | None:
    try:
        return await session.whoami()
    except FlowError as error:
        if error.reason != "unimplemented":  # as in Flyte 1
            raise
        return None


def _taken(identity: Identity | None, headers: Mapping[str, str]) -> Finding:
    text = "the control plane takes the token, and does not say whom it is of"
    if identity is not None:
        who = quote(identity.preferred_username or identity.subject, 80)
        text = f"the control plane takes us for {who}"
    own = [name for name in headers if name.lower() not in {"authorization", _PROXY}]
    if not own:
        return Finding(NAME, "ok", text)
    return Finding(
        NAME,
        "warn",
        f"{text}; it takes tokens from {own[0]}, where flyte puts none that a command prints",
        "in a program that uses flyte: flyteauth.integrations.flyte.installed",
    )
