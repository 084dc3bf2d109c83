"""Whether the configuration says where to, and what of the environment it is made of."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from .._io.threads import run_in_daemon
from . import sources
from .finding import Finding, of_error
from .patient import Patient
from .standing import LEFTOVER, has_leftover

READ_DEADLINE = 5.0  # seconds


async def configuration(patient: Patient) -> Finding:
    name, settings = "configuration", patient.settings
    if settings is None:
        assert patient.problem is not None
        return of_error(name, patient.problem)
    if patient.problem is not None and patient.problem.reason == "endpoint":
        where = "no configuration file was found"
        if settings.config_file is not None:
            where = f"{settings.config_file} names no endpoint"
        if any(key.meant == "endpoint" for key in settings.unknown_keys):
            return of_error(name, patient.problem)
        advice = "run: flyteauth create config --endpoint https://your-endpoint"
        return Finding(name, "fail", where, advice)
    if patient.problem is not None:
        return of_error(name, patient.problem)
    where = "no file" if settings.config_file is None else str(settings.config_file)
    given = settings.auth_type if settings.auth_type_given else f"{settings.auth_type}, the default"
    text = f"{where}; authType {given}"
    if settings.unknown_keys:
        lines = "; ".join(map(str, settings.unknown_keys))
        fix = "correct these keys or remove them: nobody reads them"
        return Finding(name, "warn", f"{text}; {lines}", fix)
    return Finding(name, "ok", text)


async def endpoint(patient: Patient) -> Finding:
    name, settings = "endpoint", patient.settings
    if settings is None or patient.setup is None:
        return Finding(name, "skip", "there is none")
    if settings.endpoint is None:
        return Finding(name, "ok", f"issuer {settings.issuer}")
    source = sources.spoken(settings.sources["endpoint"])
    if warning := settings.endpoint.warning or settings.key_warning:
        problem, _, fix = warning.rpartition("; ")
        return Finding(name, "warn", problem, fix)
    return Finding(name, "ok", f"{settings.endpoint.url}, from {source}")


async def environment(patient: Patient) -> Finding:
    """Names only: a value may be a secret."""
    name = "environment"
    if patient.settings is None:
        return Finding(name, "skip", "the configuration cannot be read")
    seen = sources.variables(patient.settings, patient.environ, asked=patient.asked)
    if not seen:
        return Finding(name, "ok", "no variable is set that matters here")
    unknown = [variable.name for variable in seen if variable.why.startswith("there is no setting")]
    said = ", ".join(
        variable.name if variable.state == "used" else f"{variable.name} ({variable.state})"
        for variable in seen
    )
    if unknown:
        fix = f"correct the name of {', '.join(unknown)}, or unset it"
        return Finding(name, "warn", f"{said}; no setting is named {unknown[0]}", fix)
    return Finding(name, "ok", said)


async def leftover(patient: Patient) -> Finding:
    del patient
    name = "leftover"
    if not await run_in_daemon(has_leftover, deadline=READ_DEADLINE):
        return Finding(name, "ok", f"no {LEFTOVER} of an older client")
    return Finding(
        name,
        "warn",
        f"{LEFTOVER} is there, which an older client of Union has left behind",
        f"remove it unless you still use that client: rm -r {LEFTOVER}",
    )


async def versions(patient: Patient) -> Finding:
    del patient

    def look() -> str:
        try:
            ours = version("flyteauth")
        except PackageNotFoundError:
            ours = "(unknown version)"
        python = ".".join(map(str, sys.version_info[:3]))
        return f"flyteauth {ours}, Python {python}, {platform.system()} {platform.release()}"

    return Finding("versions", "ok", await run_in_daemon(look, deadline=READ_DEADLINE))
