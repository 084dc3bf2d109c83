"""All checks at once, each with a deadline: one that hangs or crashes is a finding as well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
from attrs import evolve, frozen

from ..errors import Error
from . import access, certificate, configuration, keeping, network, prompt
from .finding import LOGIN_AGAIN, RESUME, Finding, of_error
from .patient import Patient, admit

DEADLINE: Final = 10.0  # seconds


@frozen
class Check:
    """``look`` is not called without a server to talk to if it ``needs_server``."""

    name: str
    look: Callable[[Patient], Awaitable[Finding]]
    needs_server: bool = False


CHECKS: Final = (
    Check("configuration", configuration.configuration),
    Check("endpoint", configuration.endpoint),
    Check("connection", network.connection, needs_server=True),
    Check("proxy", network.proxy, needs_server=True),
    Check("TLS", certificate.certificate, needs_server=True),
    Check("login server", network.discovery, needs_server=True),
    Check("clock", network.clock, needs_server=True),
    Check("way to log in", prompt.browser, needs_server=True),
    Check("redirect port", prompt.port, needs_server=True),
    Check("keyring", keeping.keyring),
    Check("files", keeping.files),
    Check("lock", keeping.lock),
    Check("login", keeping.login, needs_server=True),
    Check("access", access.access, needs_server=True),
    Check("begun login", keeping.pending, needs_server=True),
    Check("leftover", configuration.leftover),
    Check("environment", configuration.environment),
    Check("versions", configuration.versions),
)


async def examine(
    asked: str | None,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    checks: Sequence[Check] = CHECKS,
    deadline: float = DEADLINE,
) -> list[Finding]:
    """The findings, in the order of *checks*. *given* are arguments of Session."""
    patient = await admit(asked, given, environ)
    findings: dict[int, Finding] = {}

    async def look(place: int, check: Check) -> None:
        findings[place] = await _look(check, patient, deadline)

    try:
        async with anyio.create_task_group() as group:
            if patient.setup is not None:
                group.start_soon(patient.talk.hold, patient.setup)
            for place, check in enumerate(checks):
                group.start_soon(look, place, check)
    finally:
        if patient.setup is not None:
            with anyio.CancelScope(shield=True):
                await patient.setup.transport.aclose()
                await patient.setup.vault.aclose()
    return [findings[place] for place in range(len(checks))]


async def _look(check: Check, patient: Patient, deadline: float) -> Finding:
    if check.needs_server and patient.setup is None:
        return Finding(check.name, "skip", "there is no endpoint")
    late = Finding(
        check.name,
        "fail",
        f"no answer within {deadline:g} s",
        "see what hangs there, or try again",
    )
    with anyio.move_on_after(deadline):
        try:
            return await check.look(patient)
        except Error as error:
            return of_error(check.name, error)
        except TimeoutError:
            return late
        except Exception as error:  # noqa: BLE001  # whatever it is, the others go on
            kind = type(error).__name__
            return Finding(check.name, "fail", f"the check has crashed ({kind})", "report this bug")
    return late


def with_commands(findings: Sequence[Finding], login: str, resume: str) -> list[Finding]:
    """The same with the command *login* where somebody has to log in, and *resume* where somebody
    has begun to.
    """
    commands = {keeping.LOGIN: login, LOGIN_AGAIN: login, f"run: {RESUME}": resume}
    return [
        evolve(finding, fix=f"run: {commands[finding.fix]}") if finding.fix in commands else finding
        for finding in findings
    ]


def advice(findings: Sequence[Finding], login: str) -> str:
    """The one line to go on with; *login* is the command that logs in."""
    for finding in findings:
        if finding.state == "fail":
            return _line(finding, login)
    for finding in findings:
        if finding.fix.startswith(keeping.LOGIN):
            return f"run: {login}"
    warnings = [finding.name for finding in findings if finding.state == "warn"]
    if not warnings:
        return "everything works"
    count = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return f"works, with {count}: {', '.join(warnings)}"


def _line(finding: Finding, login: str) -> str:
    if finding.fix.startswith(keeping.LOGIN) or finding.fix == LOGIN_AGAIN:
        return f"run: {login}"
    if finding.fix.startswith("run: "):
        return finding.fix
    return f"first: {finding.fix or finding.text}"
