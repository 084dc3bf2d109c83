"""``flyteauth create config``: writes a config.yaml, or changes what is said of one."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, Final

from ..errors import ConfigError, InteractionRequired, escape
from ._for_tool import TOOLS, WITHOUT_TLS, divided, joined, ours_for, tool_of
from ._output import ask, say
from ._rewriting import alone, dumped, keep, write

DEFAULT: Final = Path(".flyte") / "config.yaml"
EPILOG: Final = """\
examples:
  flyteauth create config --endpoint https://flyte.example.com
  flyteauth create config --endpoint https://flyte.example.com --auth-type headless
  flyteauth create config --endpoint flyte.example.com --auth-type client-secret \\
      --client-id ci --client-secret-env-var CI_SECRET
  flyteauth create config --endpoint https://flyte.example.com --for flyte

A file that is there already is changed: what is not said stays, and so do keys that are not ours.
With --endpoint alone, DeviceFlow or ClientSecret becomes a login by browser again.

With --for, that tool gets its tokens from flyteauth token (authType ExternalCommand); how to log in
is written into a second file, which flyteauth goes on to by itself. flyte serves flytekit, too.
"""
# What an authType other than ClientSecret has no use for: a secret that is found goes before it.
_SECRETS: Final = ("clientSecretLocation", "clientSecretEnvVar")

LOCK_WAIT: Final = 5.0  # seconds for others to change the same file

Document = dict[Any, Any]
Found = tuple[Document, bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def add(option: str, metavar: str, what: str, default: str | None = None) -> None:
        parser.add_argument(option, metavar=metavar, default=default, help=what)

    def add_shared(option: str, metavar: str, what: str) -> None:
        """One that may stand before the command as well."""
        add(option, metavar, what, default=argparse.SUPPRESS)

    add_shared("--endpoint", "URL", "the control plane: a host, dns:///host or https://host:port")
    add("--project", "NAME", "the project that commands are about unless they say otherwise")
    add("--domain", "NAME", "the domain, likewise")
    add("--org", "NAME", "the organisation")
    add_shared(
        "--auth-type",
        "TYPE",
        "pkce (default: a browser), headless or device-flow (a code for any device), "
        "client-secret or app-credential (a service), external-command, none",
    )
    add("--client-id", "ID", "the client to log in as, instead of the control plane's own")
    add("--client-secret-location", "FILE", "the file that holds the client secret")
    add("--client-secret-env-var", "NAME", "the environment variable that holds it")
    add_shared("--ca-cert", "FILE", "certificate authority to trust as well")
    parser.add_argument(
        "--insecure",
        action="store_true",
        default=argparse.SUPPRESS,
        help="no TLS, within this machine",
    )
    parser.add_argument(
        "--for",
        dest="tool",
        choices=TOOLS,
        help="have that tool get its tokens from flyteauth",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help=f"default: ./{DEFAULT}")
    parser.add_argument("--force", action="store_true", help="change a file without asking")


def main(options: argparse.Namespace) -> int:
    given = options.output or options.config or DEFAULT
    path = Path(os.path.realpath(os.path.expanduser(given)))  # noqa: PTH111  pathlib raises without a home
    seen = _look(path, options)
    planned, _ = _planned(path, seen, options)  # what cannot be said fails before a lock
    if not options.force:
        changes = {each: list(_differences(was[0], planned[each])) for each, was in _there(seen)}
        if not _may_change(changes):
            say("Nothing was changed.")
            return 1
    with alone(path):
        found = _look(path, options)
        if _bytes(found) != _bytes(seen) and not options.force:
            raise ConfigError(f"{path} was changed meanwhile; run it again", reason="config_file")
        new, whole = _planned(path, found, options)
        said = [_put(each, found[each], document) for each, document in new.items()]
    for text in said:
        say(text)
    _say_what_next(path, whole, for_flyte=new[path] is not whole)
    return 0


def _look(path: Path, options: argparse.Namespace) -> dict[Path, Found | None]:
    """What is in the file at *path*, and, where a tool asks us or is to, in the one of ours that
    goes with it. That comes first: it must be there when the other one names it.
    """
    found = _read(path)
    document = {} if found is None else found[0]
    if options.tool is None and tool_of(document) is None:
        return {path: found}
    ours = ours_for(path, document)
    return {ours: _read(ours), path: found}


def _planned(
    path: Path, seen: Mapping[Path, Found | None], options: argparse.Namespace
) -> tuple[dict[Path, Document], Document]:
    """What is to be in each of these files; and what it comes to, which is all of it in one."""
    found = seen[path]
    others = [each for each in seen if each != path]
    if not others:
        whole = _changed(None if found is None else found[0], options)
        return {path: whole}, whole
    (ours,) = others
    login, document = seen[ours], None
    if found is not None:
        document = joined(found[0], None if login is None else login[0])
    whole = _changed(document, options)
    tool = options.tool or tool_of({} if found is None else found[0]) or TOOLS[0]
    mine, its = divided(whole, tool, ours)
    if login is not None:
        mine = {**login[0], **mine}
    return {ours: mine, path: its}, whole


def _there(seen: Mapping[Path, Found | None]) -> list[tuple[Path, Found]]:
    return [(path, found) for path, found in seen.items() if found is not None]


def _bytes(seen: Mapping[Path, Found | None]) -> list[tuple[Path, bytes]]:
    return [(path, data) for path, (_, data) in _there(seen)]


def _put(path: Path, found: Found | None, new: Document) -> str:
    """Write *new* in the place of what was *found* at *path*; what there is to say of it."""
    shown = escape(str(path))
    if found is None:
        data = dumped(new)
        write(path, data)
        lines = data.decode().splitlines()
        return "\n".join([f"Wrote {shown}:", *(f"  {escape(line)}" for line in lines)])
    old, data = found
    if not list(_differences(old, new)):
        return f"{shown} says so already; nothing was changed."
    kept = escape(str(keep(path, data)))
    write(path, dumped(new, old, data), like=path)
    comments = ", with its comments" if re.search(rb"(?:^|\s)#", data) else ""
    return f"Changed {shown}; as it was{comments}, it is kept in {kept}."


def _read(path: Path) -> Found | None:
    """What the file says, and its bytes; None without one. Raises ConfigError for what no
    configuration is.
    """
    import yaml

    from .._config_file import find

    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):  # noqa: PTH113  pathlib raises where it may not look
        raise ConfigError(
            f"{path} is not a file; name another one with --output", reason="config_file"
        )
    find(path, {}, search=False)
    data = path.read_bytes()
    return yaml.safe_load(data.decode("utf-8-sig")) or {}, data


def _may_change(planned: Mapping[Path, list[str]]) -> bool:
    """Whether these changes may be made. Raises InteractionRequired if nobody can say so."""
    from .._io.presenter import person_present

    changing = {path: changes for path, changes in planned.items() if changes}
    if not changing:
        return True
    path = next(iter(changing))
    if not person_present():
        changes = [change for each in changing.values() for change in each]
        raise InteractionRequired(
            f"{path} is there already and nobody can be asked; add --force to change it "
            f"({'; '.join(changes)})",
            reason="exists",
        )
    for each, changes in changing.items():
        say(f"This changes {escape(str(each))}:")
        for change in changes:
            say(f"  {escape(change)}")
    return ask("Change it?")


# What is to be in the file.


def _changed(existing: Document | None, options: argparse.Namespace) -> Document:
    """What is there with what *options* say. Raises ConfigError for what cannot be said: one that
    begins with "argument" is for who has written the command line.
    """
    old = existing or {}
    admin, task = dict(old.get("admin") or {}), dict(old.get("task") or {})
    before = _get(admin, "endpoint")
    if options.endpoint is None and before is None:
        raise ConfigError(
            "argument --endpoint: a configuration needs a control plane; "
            "add --endpoint https://flyte.example.com",
            reason="endpoint",
        )
    _set_auth_type(admin, options)
    if options.endpoint is not None or options.insecure:
        _set_endpoint(admin, options)
    if options.ca_cert is not None:
        from .._config_values import Found, certificates

        found = Found("ca_file", options.ca_cert, "argument --ca-cert", argument=True)
        _set(admin, "caCertFilePath", str(certificates(found)))
    if options.org is not None or _get(task, "org") in {None, _org(before)}:
        _set(task, "org", options.org or _org(_get(admin, "endpoint")))
    for key in ("project", "domain"):
        if (value := getattr(options, key)) is not None:
            _set(task, key, value)
    image = {"image": {"builder": "local"}} if existing is None else {}
    sections = {"admin": admin, **image, "task": task}
    return {name: section for name, section in {**old, **sections}.items() if section != {}}


def _set_endpoint(admin: Document, options: argparse.Namespace) -> None:
    """As Flyte's own tools write it. Plain HTTP to this machine is ``insecure``: all of them
    understand that, and none ``http://``.
    """
    from .._config_values import Found, flag
    from .._endpoint import parse_endpoint

    allowed = _get(admin, "allowInsecureCredentials") or _get(admin, "authType") == "NoAuth"
    given = options.endpoint if options.endpoint is not None else str(_get(admin, "endpoint"))
    endpoint = parse_endpoint(
        given,
        insecure=bool(options.insecure),
        allow_insecure_credentials=bool(allowed),
        source="argument --endpoint" if options.endpoint is not None else "argument --insecure",
    )
    scheme, _, rest = endpoint.url.partition("://")
    _set(admin, "endpoint", f"dns:///{rest}")
    insecure = Found("insecure", _get(admin, "insecure") or False, "admin.insecure")
    if (scheme == "http") != flag(insecure):
        _set(admin, "insecure", True if scheme == "http" else None)


def _set_auth_type(admin: Document, options: argparse.Namespace) -> None:
    """The authType that was said; the default is left out."""
    from ..config import parse_cli_auth_type

    secrets = ("client_secret_location", "client_secret_env_var")
    was = _get(admin, "authType")
    was_service = was == "ClientSecret" or any(_get(admin, key) for key in _SECRETS)
    if options.auth_type is not None:
        try:
            auth_type = parse_cli_auth_type(options.auth_type)
        except ConfigError as error:
            message = str(error).removeprefix("auth type")
            raise ConfigError(f"argument --auth-type{message}", reason="auth_type") from None
    elif any(getattr(options, name) is not None for name in secrets):
        auth_type = "ClientSecret"
    elif options.endpoint is not None and (
        was == "DeviceFlow" or (was_service and options.client_id is None)
    ):
        auth_type = "Pkce"
    else:
        auth_type = None
    if auth_type is not None:
        _set(admin, "authType", None if auth_type == "Pkce" else auth_type, first=True)
    if auth_type not in {None, "ClientSecret"} and was_service:
        for key in ("clientId", *_SECRETS):
            _set(admin, key, None)
    if options.client_id is not None:
        _set(admin, "clientId", options.client_id)
    if options.client_secret_location is not None:
        location = os.path.abspath(os.path.expanduser(options.client_secret_location))  # noqa: PTH100, PTH111  pathlib raises without a home
        _set(admin, "clientSecretLocation", location)
    if options.client_secret_env_var is not None:
        from .._config_values import Found, variable

        name = options.client_secret_env_var
        source = "argument --client-secret-env-var"
        _set(admin, "clientSecretEnvVar", variable(Found("client_secret_env_var", name, source)))


def _org(endpoint: object) -> str | None:
    """The organisation in the name of a host that Union runs."""
    found = re.fullmatch(r"(?:\w+:///?)?([\w-]+)(?:\.[\w-]+)*\.unionai\.cloud/?", str(endpoint))
    return found[1] if found else None


def _spelling(section: Document, key: str) -> Any:
    from .._config_file import same_key

    return next((name for name in section if same_key(name) == same_key(key)), key)


def _get(section: Document, key: str) -> Any:
    return section.get(_spelling(section, key))


def _set(section: Document, key: str, value: object, *, first: bool = False) -> None:
    """*value*, or without one nothing, under *key* in the spelling that is there."""
    name = _spelling(section, key)
    if value is None:
        section.pop(name, None)
    elif first and name not in section:
        rest = dict(section)
        section.clear()
        section.update({name: value, **rest})
    else:
        section[name] = value


def _differences(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[str]:
    for section in ("admin", "task"):
        before, after = old.get(section) or {}, new.get(section) or {}
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) == after.get(key):
                continue
            if key in after:
                yield f"{section}.{key}: {after[key]}"
            else:
                yield f"no {section}.{key}"


# What to do with it.


def _say_what_next(path: Path, document: Document, *, for_flyte: bool = False) -> None:
    from .._config_file import find, is_searched

    admin = document["admin"]
    if for_flyte and _get(admin, "insecure"):
        say(f"flyteauth: {WITHOUT_TLS}")
    missing = ""
    match _get(admin, "authType"):
        case "ClientSecret" if not any(_get(admin, key) for key in _SECRETS):
            missing = "a client secret: add --client-secret-location or --client-secret-env-var"
        case "ClientSecret" if not _get(admin, "clientId"):
            missing = "a client: add --client-id"
        case "ExternalCommand" if not _get(admin, "command"):
            missing = "a command that prints a token: write admin.command into it"
    if missing:
        say(f"flyteauth: it still needs {missing}")
        return
    try:
        found, _ = find(None, os.environ, search=True)
        first, problem = (found.path if found else None), ""
    except ConfigError as error:
        first, problem = None, str(error)
    named = ""
    if first is None or os.path.realpath(first) != str(path):
        named = f" --config {quote(str(path))}"
        if problem:
            say(f"flyteauth: {problem}")
        elif first is not None and is_searched(path, os.environ):
            before = escape(str(first))
            say(f"flyteauth: {before} goes before it; remove that one, or name this one each time")
    # Where nobody logs in, a call shows whether it works.
    what = "get project" if _get(admin, "authType") in {"ClientSecret", "NoAuth"} else "login"
    say(escape(f"Next: flyteauth{named} {what}"))
