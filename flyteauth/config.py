"""
Configuration: a file, the environment and arguments, resolved into `Settings`.

Precedence, setting by setting: arguments, then an API key, then the environment, then the file,
then the default. `Settings.sources` says where each value came from, `Settings.overridden` what
lost against it. So it is on the command line, and in ``init`` and ``Session.from_config``;
``Session(…)``, and ``init`` with an endpoint, an issuer or an API key, take arguments alone.

The file is the first of ``./config.yaml`` (if it has a section of Flyte's),
``./.flyte/config.yaml``, ``.flyte/config.yaml`` at the root of the git repository, what the
environment variables ``UCTL_CONFIG`` (or ``UNION_CONFIG``) and ``FLYTECTL_CONFIG`` name,
``~/.union/config.yaml`` and ``~/.flyte/config.yaml``. Keys may be spelled in snake_case, too.

For each key there is an environment variable, ``FLYTE_`` and the key in capitals
(``admin.clientId``: ``FLYTE_ADMIN_CLIENTID``), whether there is a file or not. Where other names
are listed they win over that one. An empty variable is not set. Mappings are JSON there.

admin.endpoint
    ``dns:///host``, ``https://host:8443`` or ``host``: over TLS. ``http://localhost:8080``: plain.
admin.issuer
    https URL of an authorization server, to be used whatever the endpoint says.
admin.authType, FLYTE_AUTH_TYPE
    Pkce (default), DeviceFlow, ClientSecret, ExternalCommand, Passthrough or NoAuth, spelled so. A
    client secret makes it ClientSecret, unless the argument auth_type or headless says otherwise.
    NoAuth sends no credentials, and asks nobody whether any are wanted. flyteauth, by which
    flytekit finds us, is the default.
admin.clientId
    Text.
admin.clientSecretLocation
    File that holds the client secret; one line break at its end does not count.
admin.clientSecretEnvVar
    Environment variable that holds the client secret. Where it is set it wins over the file.
admin.clientAuth
    basic, basic_raw, post or none, or their long names (client_secret_basic, …). Default: what
    the authorization server lists.
admin.scopes
    List, JSON array, or words between commas or spaces. Default: the server's list.
admin.audience
    Text.
admin.redirectUri
    http URL of localhost, 127.0.0.1 or [::1].
admin.callbackBind
    Address, or address:port, to listen at for the browser instead of this machine's own: for the
    published port of a container. The redirect URI stays as it is. There is a warning.
admin.browserCommand
    Command that opens an address: list, JSON array, or a line as in a shell. ``{url}`` is where
    the address belongs, else it comes last. Default: $BROWSER, then what the system has.
admin.endpoints
    Mapping: authorization_endpoint, token_endpoint, device_authorization_endpoint and
    revocation_endpoint to https URLs.
admin.extraParameters
    Mapping: authorization, device_authorization and token to mappings of text to text. A flat
    mapping is for authorization.
admin.quirks
    List: assume_bearer (token_type may be missing), any_token_alphabet.
admin.insecure
    true: no TLS, within this machine. Default false.
admin.allowInsecureCredentials
    true: insecure may leave this machine, with a warning. Default false.
admin.insecureSkipVerify
    true: certificates are not checked. Default false; caCertFilePath beats it.
admin.caCertFilePath
    File of certificates in PEM form.
admin.verifyIssuer
    true: what the endpoint says of its authorization server must agree with the server's own
    metadata. Default false.
admin.httpProxyURL
    URL of a proxy.
admin.disableKeyring
    true: no keyring. Default false.
admin.tokenStore
    keyring, file, memory, or a URL: redis://, rediss:// (with TLS), valkey:// or valkeys://, with
    user:password@host:port/database, shared by all who name it. Default: for a person the keyring,
    and where it cannot be used, a file; for a service, memory.
admin.sharedLogins
    List: flyte, flytekit, flytectl. What these keep in the keyring follows a person's login: what
    they have refreshed is taken over, and what a login or a refresh brings is written there, too,
    wherever our own logins are.
admin.account
    Label that keeps several logins at one endpoint apart.
admin.command, FLYTE_AUTH_COMMAND
    Command that prints a token: list, JSON array, or a line as in a shell. Where that is
    ``flyteauth token``, so that other programs ask us, the file that its ``--config`` names takes
    the place of the section admin, and its other words come right after the arguments.
admin.commandTimeout
    Seconds that a command may take. Default 60.
admin.proxyCommand, FLYTE_AUTH_PROXY_COMMAND
    Command that prints a token for a proxy; it goes into the header proxy-authorization.
admin.loginTimeout
    Seconds that a login in a browser may take; a device code has its own. Default 300.
task.org, task.project, task.domain
    Text.

FLYTE_API_KEY (or UNION_API_KEY) holds an API key: endpoint, client id, client secret and
organisation in one. What the file says of issuer and endpoints does not count then: it belongs to
another endpoint. Its secret goes to no other control plane: an argument endpoint that names one is
an error, and where the environment or the file does, the key's is used, with a warning. The key is
left alone where admin.clientSecretEnvVar names it, because it then holds a client secret, and where
the argument auth_type, headless, client_id or client_secret says who logs in.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from . import _config_values as values
from ._config_file import ConfigFile, contents, find, same_key
from ._config_keys import Unknown, unknown
from ._config_values import Found
from ._endpoint import Endpoint, parse_endpoint
from ._own_command import Layer, asked, followed
from ._sansio.errors import ConfigError
from ._sansio.urls import plain_host
from ._sansio.value import Value

if TYPE_CHECKING:
    from ._sansio.client import Authentication, Quirk
    from ._sansio.keyring_layouts import Tool

__all__ = ["AuthType", "Endpoint", "Secret", "Settings", "parse_cli_auth_type", "resolve"]

AuthType = Literal["Pkce", "DeviceFlow", "ClientSecret", "ExternalCommand", "Passthrough", "NoAuth"]
AUTH_TYPES: Final[tuple[AuthType, ...]] = get_args(AuthType)

SECRET_MAX: Final = 64 * 1024
READ_DEADLINE: Final = 15.0  # seconds; a named pipe or a dead network mount may never answer


class Secret(Value, hidden=("held", "environ"), uncompared=("environ",)):
    """A client secret, or where it is kept; neither is in the repr, nor in any error.

    ``held`` is the secret itself, the name of a file, or the name of an environment variable.
    """

    kind: Literal["value", "file", "environment"]
    source: str
    held: str
    environ: Mapping[str, str] | None = None
    """Instead of the process's environment."""

    def read(self) -> str:
        """The secret as it is now, for it may have been rotated (blocking for a file).

        One line break at its end does not count.
        """
        match self.kind:
            case "value":
                name, secret, problem = "the client secret", self.held, ""
            case "environment":
                environ = os.environ if self.environ is None else self.environ
                name, secret = f"the environment variable {self.held}", environ.get(self.held, "")
                problem = "" if self.held in environ else "is not set"
            case "file":
                name = f"the file {self.held}"
                secret, problem = _decode(self.held)
        secret = secret.removesuffix("\n").removesuffix("\r") if secret.endswith("\n") else secret
        if problem := problem or _unfit(secret):
            raise ConfigError(
                f"{self.source}: {name} {problem}; it must hold the client secret and nothing else",
                reason="client_secret",
            )
        return secret


def _decode(file: str) -> tuple[str, str]:
    data, problem = contents(file, SECRET_MAX)
    try:
        return data.decode("utf-8-sig"), problem
    except UnicodeDecodeError:
        return "", "is not text in UTF-8"


def _unfit(secret: str) -> str:
    if not secret:
        return "is empty"
    kinds = {unicodedata.category(character) for character in secret}
    if "Cs" in kinds:  # how Python shows what it could not decode
        return "is not text in UTF-8"
    broken = kinds & {"Cc", "Zl", "Zp"}
    return "has a line break or a control character inside" if broken else ""


_NOTHING: Final[Mapping[str, Any]] = {}

_SECRET: Final = (
    "extra_parameters",
    "http_proxy_url",
    "token_store",
    "command",
    "proxy_command",
)


class Settings(Value, hidden=_SECRET):
    """Everything that was configured, checked; see the module for what each setting means.

    ``sources`` names where each value came from, ``overridden`` the sources that lost against it,
    ``considered`` has a line for each file that was looked at.
    """

    endpoint: Endpoint | None = None
    issuer: str | None = None
    auth_type: AuthType = "Pkce"
    auth_type_given: bool = False
    """False where ``auth_type`` is only the default."""
    client_id: str | None = None
    client_secret: Secret | None = None
    client_auth: Authentication | None = None
    scopes: tuple[str, ...] | None = None
    """None: the server's list. Empty: no scope is sent."""
    audience: str | None = None
    redirect_uri: str | None = None
    callback_bind: tuple[str, int | None] | None = None
    """Address and port; no port: that of the redirect URI."""
    browser_command: tuple[str, ...] | None = None
    endpoints: Mapping[str, str] = _NOTHING
    extra_parameters: Mapping[str, Mapping[str, str]] = _NOTHING
    quirks: frozenset[Quirk] = frozenset()
    insecure: bool = False
    insecure_skip_verify: bool = False
    allow_insecure_credentials: bool = False
    verify_issuer: bool = False
    ca_file: Path | None = None
    http_proxy_url: str | None = None
    disable_keyring: bool = False
    token_store: str | None = None
    shared_logins: tuple[Tool, ...] = ()
    account: str | None = None
    command: tuple[str, ...] | None = None
    command_timeout: float = 60.0
    """Seconds."""
    proxy_command: tuple[str, ...] | None = None
    login_timeout: float = 300.0
    """Seconds."""
    org: str | None = None
    project: str | None = None
    domain: str | None = None
    config_file: Path | None = None
    config_named: bool = False
    """Whether ``config_file`` was asked for, and not found."""
    sources: Mapping[str, str] = _NOTHING
    overridden: Mapping[str, tuple[str, ...]] = _NOTHING
    considered: tuple[str, ...] = ()
    unknown_keys: tuple[Unknown, ...] = ()
    """Keys of the file that nobody reads."""
    key_warning: str | None = None
    """One line on a control plane that an API key goes before, or None."""

    @property
    def is_service(self) -> bool:
        """Whether a token takes no person (RFC 6749 §4.4)."""
        return self.auth_type in {"ClientSecret", "ExternalCommand"}

    @property
    def secret_variables(self) -> frozenset[str]:
        """Environment variables that hold a secret of ours, and are no child's business."""
        secret = self.client_secret
        held = {secret.held} if secret and secret.kind == "environment" else set()
        for name in ("token_store", "http_proxy_url"):  # with a password, perhaps
            if "@" in (getattr(self, name) or ""):
                where, _, variable = self.sources.get(name, "").rpartition(" ")
                held |= {variable} if where == "environment variable" else set()
        return frozenset({*API_KEY_VARIABLES, *held})

    @property
    def plain_host(self) -> str | None:
        """The host that credentials may go to unencrypted, if there is one."""
        return None if self.endpoint is None else plain_host(self.endpoint.url)

    def require_server(self) -> None:
        """Raise ConfigError unless there is an endpoint or an issuer to talk to."""
        if self.endpoint is None and self.issuer is None:
            if near := _near(self.unknown_keys, "endpoint"):
                raise ConfigError(f"no endpoint is configured: {near}", reason="endpoint")
            where = "in a config.yaml" if self.config_file is None else f"in {self.config_file}"
            raise ConfigError(
                "no endpoint is configured; set the environment variable FLYTE_ADMIN_ENDPOINT, "
                f"admin.endpoint {where}, or the argument endpoint",
                reason="endpoint",
            )


def _near(keys: Sequence[Unknown], *meant: str) -> Unknown | None:
    """The key that is not read, and was perhaps to be one of those."""
    return next((key for key in keys if key.meant in meant), None)


# authType and its spellings.

_CLI_AUTH_TYPES: Final[Mapping[str, AuthType]] = {
    "pkce": "Pkce",
    **dict.fromkeys("headless device-flow device_flow".split(), "DeviceFlow"),
    **dict.fromkeys(
        "client-secret client_secret clientsecret app-credential app_credential".split(),
        "ClientSecret",
    ),
    **dict.fromkeys(
        "external-command external_command externalcommand command custom".split(),
        "ExternalCommand",
    ),
    **dict.fromkeys("none no-auth no_auth".split(), "NoAuth"),
}
_ANY_AUTH_TYPES: Final = {**_CLI_AUTH_TYPES, **{name.lower(): name for name in AUTH_TYPES}}


def parse_cli_auth_type(text: str) -> AuthType:
    """The authType that a command line means: ``pkce``, ``headless``, ``device-flow``, …, or
    one of the exact names.
    """
    return _auth_type(Found("auth_type", text, "auth type", argument=True))


def _auth_type(found: Found) -> AuthType:
    name = values.text(found)
    for known in AUTH_TYPES:
        if name == known:
            return known
    if found.argument and (meant := _CLI_AUTH_TYPES.get(name.lower())):
        return meant
    meant = _ANY_AUTH_TYPES.get(name.lower())
    advice = meant or f"{', '.join(AUTH_TYPES[:-1])} or {AUTH_TYPES[-1]}"
    raise found.wrong("this is not the name of an authType", f"write {advice}")


def _client_auth(found: Found) -> Authentication:
    from ._sansio.client import Authentication

    names: tuple[Authentication, ...] = get_args(Authentication)
    meant: dict[str, Authentication] = {
        **{name: name for name in names},
        **{name.removeprefix("client_secret_"): name for name in names},
    }
    return meant[values.one_of(meant)(found)]


# The settings.


class _Setting(Value):
    """One setting: its name, its key, and how its value is read."""

    name: str
    section: str
    key: str
    convert: Callable[[Found], Any]
    also: str = ""
    """An environment variable that wins over the derived one."""
    arguments: tuple[str, ...] | None = None
    """None: the name."""

    @property
    def variables(self) -> tuple[str, ...]:
        derived = f"FLYTE_{self.section}_{self.key}".upper()
        return (self.also, derived) if self.also else (derived,)


def _admin(
    name: str,
    key: str,
    convert: Callable[[Found], Any],
    also: str = "",
    arguments: tuple[str, ...] | None = None,
) -> _Setting:
    return _Setting(name, "admin", key, convert, also, arguments)


SETTINGS: Final = (
    _admin("endpoint", "endpoint", values.text),
    _admin("issuer", "issuer", values.issuer),
    _admin("auth_type", "authType", _auth_type, "FLYTE_AUTH_TYPE"),
    _admin("client_id", "clientId", values.text),
    _admin("client_secret_location", "clientSecretLocation", values.path, arguments=()),
    _admin("client_secret_env_var", "clientSecretEnvVar", values.variable, arguments=()),
    _admin("client_auth", "clientAuth", _client_auth),
    _admin("scopes", "scopes", values.scopes),
    _admin("audience", "audience", values.text),
    _admin("redirect_uri", "redirectUri", values.redirect_uri),
    _admin("callback_bind", "callbackBind", values.bind_address),
    _admin("browser_command", "browserCommand", values.argv),
    _admin("endpoints", "endpoints", values.endpoints),
    _admin("extra_parameters", "extraParameters", values.extra_parameters),
    _admin("quirks", "quirks", values.quirks),
    _admin("insecure", "insecure", values.flag),
    _admin("insecure_skip_verify", "insecureSkipVerify", values.flag),
    _admin("allow_insecure_credentials", "allowInsecureCredentials", values.flag),
    _admin("verify_issuer", "verifyIssuer", values.flag),
    _admin(
        "ca_file",
        "caCertFilePath",
        values.certificates,
        arguments=("ca_cert_file_path", "ca_file"),
    ),
    _admin("http_proxy_url", "httpProxyURL", values.proxy),
    _admin("disable_keyring", "disableKeyring", values.flag),
    _admin("token_store", "tokenStore", values.token_store),
    _admin("shared_logins", "sharedLogins", values.tools),
    _admin("account", "account", values.text),
    _admin("command", "command", values.argv, "FLYTE_AUTH_COMMAND"),
    _admin("command_timeout", "commandTimeout", values.seconds),
    _admin("proxy_command", "proxyCommand", values.argv, "FLYTE_AUTH_PROXY_COMMAND"),
    _admin("login_timeout", "loginTimeout", values.seconds),
    _Setting("org", "task", "org", values.text),
    _Setting("project", "task", "project", values.text),
    _Setting("domain", "task", "domain", values.text),
)
API_KEY_VARIABLES: Final = ("FLYTE_API_KEY", "UNION_API_KEY")

_ARGUMENTS: Final[Mapping[str, str]] = {
    **{name: s.name for s in SETTINGS for name in (s.arguments or ())},
    **{s.name: s.name for s in SETTINGS if s.arguments is None},
    "client_secret": "client_secret",
    "client_credentials_secret": "client_secret",
    "headless": "headless",
    "api_key": "api_key",
}

_ADMIN_KEYS: Final = tuple(s.key for s in SETTINGS if s.section == "admin")
_ELSEWHERE: Final = frozenset(s.name for s in SETTINGS if s.section != "admin")


def resolve(
    arguments: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None,
    path: str | Path | None = None,
    search: bool,
) -> Settings:
    """The settings that *arguments*, *environ* and a configuration file make together.

    An argument that is None is not given; one that is not known raises TypeError. Without
    *environ* nothing comes from the environment, except what the file itself names in
    clientSecretEnvVar. The file is the one at *path*, else, where *search* is true, the first
    that is found. This reads files, so call it in a worker thread.
    """
    given = _from_arguments(arguments)
    file, considered = find(path, environ or {}, search=search)
    ignored: list[Unknown] = []

    def read(file: ConfigFile) -> Layer:
        ignored.extend(unknown(file, _ADMIN_KEYS))
        return _from_file(file)

    words, configured, led = followed(
        _from_environment(environ or {}), read(file) if file else {}, read, elsewhere=_ELSEWHERE
    )
    layers = [
        given,
        words,
        _from_api_key({**words, **given}, environ or {}, configured),
        *(_with_secret(layer, os.environ if environ is None else environ) for layer in configured),
    ]
    found = {name: [layer[name] for layer in layers if name in layer] for name in _FIELDS}
    chosen = {name: candidates[0] for name, candidates in found.items() if candidates}
    if layers[2]:  # whose secret must not go where a file says that happens to lie here
        for name in ("issuer", "endpoints"):
            if name in chosen and chosen[name] is layers[-1].get(name):
                del chosen[name]
    if auth_type := _who({**words, **given}, chosen, layers):
        chosen["auth_type"] = auth_type
    resolved = {name: convert(chosen[name]) for name, convert in _CONVERT.items() if name in chosen}
    if "client_secret" in chosen:
        resolved["client_secret"] = _client_secret(chosen["client_secret"], environ)
    settings = Settings(
        **resolved,
        auth_type_given="auth_type" in chosen,
        config_file=file.path if file else None,
        config_named=path is not None,
        sources={name: chosen[name].source if name in chosen else "default" for name in found},
        overridden={
            name: lost
            for name, candidates in found.items()
            if (lost := tuple(x.source for x in candidates if _has_lost(x, chosen.get(name))))
        },
        considered=(*considered, *led),
        unknown_keys=tuple(ignored),
    )
    _require_another_command(settings, chosen)
    _require_identity(settings, configured)
    endpoint = _endpoint(settings, chosen.get("endpoint"))
    if endpoint is not None and layers[2]:
        _require_key_of(endpoint, chosen, layers[2])
        if chosen["endpoint"] is layers[2]["endpoint"]:
            settings = settings.replace(key_warning=_another_endpoint(endpoint, layers[3:]))
    return settings.replace(endpoint=endpoint)


def _has_lost(found: Found, chosen: Found | None) -> bool:
    return chosen is None or found.source != chosen.source


# The endpoint needs other settings and comes last; a client secret is kept in one of three places.
_CONVERT: Final[Mapping[str, Callable[[Found], Any]]] = {
    s.name: s.convert
    for s in SETTINGS
    if s.name not in {"endpoint", "client_secret_location", "client_secret_env_var"}
}
_FIELDS: Final = ("endpoint", "client_secret", *_CONVERT)


def unanswered() -> ConfigError:
    """What to raise where resolve takes longer than READ_DEADLINE."""
    return ConfigError(
        f"the configuration, or a file that it names, cannot be read within {READ_DEADLINE:.0f} s; "
        "check that they are ordinary files",
        reason="timeout",
    )


def check_arguments(arguments: Mapping[str, object]) -> None:
    """TypeError for an argument that no setting has; cheap, and long before resolve."""
    for argument in arguments.keys() - _ARGUMENTS.keys():
        raise TypeError(f"there is no setting {argument!r}")


def _from_arguments(arguments: Mapping[str, object]) -> Layer:
    check_arguments(arguments)
    layer: dict[str, Found] = {}
    for argument, value in arguments.items():
        if value is None:
            continue
        name = _ARGUMENTS[argument]
        if name in layer:
            raise TypeError(f"{argument!r} and {layer[name].source.split()[-1]!r} are the same")
        layer[name] = Found(name, value, f"argument {argument}", argument=True)
    return layer


def _from_environment(environ: Mapping[str, str]) -> Layer:
    layer: dict[str, Found] = {}
    for setting in SETTINGS:
        for variable in setting.variables:
            if value := environ.get(variable):
                source = f"environment variable {variable}"
                layer.setdefault(setting.name, Found(setting.name, value, source))
    return _without_our_name(layer)


def _from_file(file: ConfigFile) -> Layer:
    """What the file says. As in Flyte's own tools, a value that is null or empty is not there."""
    layer: dict[str, Found] = {}
    for setting in SETTINGS:
        source = f"{file.path}: {setting.section}.{setting.key}"
        section = file.sections[setting.section].items()
        found = [value for key, value in section if same_key(key) == same_key(setting.key)]
        if len(found) > 1:
            raise ConfigError(
                f"{source} is there twice, in two spellings; remove one", reason=setting.name
            )
        for value in found:
            if value is not None and value not in ("", [], {}):
                layer[setting.name] = Found(setting.name, value, source)
    return _without_our_name(layer)


def _without_our_name(layer: Layer) -> Layer:
    """An authType of flyteauth, which flytekit finds us by, says nothing of how to log in."""
    auth_type = layer.get("auth_type")
    if auth_type is None or str(auth_type.value).strip().lower() != "flyteauth":
        return layer
    return {name: found for name, found in layer.items() if name != "auth_type"}


def _require_another_command(settings: Settings, chosen: Layer) -> None:
    """Raise ConfigError for a command of ours that would ask itself."""
    if settings.auth_type != "ExternalCommand" or settings.command is None:
        return
    if chosen["command"].argument or asked(settings.command) is None:
        return
    raise chosen["command"].wrong(
        "this is flyteauth's own command, which would ask itself",
        "set authType to how you log in, or have --config name the file that says so",
    )


def _from_api_key(given: Layer, environ: Mapping[str, str], configured: list[Layer]) -> Layer:
    found = given.get("api_key")
    if found is None:
        another = "auth_type" in given and _auth_type(given["auth_type"]) != "ClientSecret"
        if another or given.keys() & {"client_id", "client_secret"} or _headless(given):
            return {}
        secrets = {
            str(layer["client_secret_env_var"].value).strip()
            for layer in configured
            if "client_secret_env_var" in layer
        }
        for variable in API_KEY_VARIABLES:
            if found is None and environ.get(variable) and variable not in secrets:
                found = Found("api_key", environ[variable], f"environment variable {variable}")
    if found is None:
        return {}
    if not isinstance(found.value, str):
        raise found.wrong("this is not text", "give the API key as text")
    from ._sansio.api_key import decode_api_key

    try:
        key, problem = decode_api_key(found.value), ""
    except ConfigError as error:
        problem = str(error)
    if problem:
        raise ConfigError(f"{found.source}: {problem}", reason="api_key")
    parts = {
        "endpoint": key.endpoint,
        "client_id": key.client_id,
        "client_secret": key.client_secret,
        "org": key.org,
    }
    source = f"API key from {found.source}"
    return {name: Found(name, value, source) for name, value in parts.items() if value}


def _require_key_of(endpoint: Endpoint, chosen: Layer, key: Layer) -> None:
    """Raise ConfigError where the secret of an API key would go to another control plane than the
    one that the key is for.
    """
    found, secret, said = key["endpoint"], key["client_secret"], chosen["endpoint"]
    if said is found or chosen["client_secret"] is not secret:
        return
    own = parse_endpoint(
        values.text(found), insecure=False, allow_insecure_credentials=False, source=found.source
    )
    if own.agrees_with(endpoint):
        return
    where, another = found.source.rpartition(" ")[2], f"an API key of {endpoint.key}"
    advice = f"use {another}"
    if where in API_KEY_VARIABLES:
        advice = f"set {where} to {another}, or unset it"
    raise ConfigError(
        f"{said.source}: {endpoint.key} is another control plane than {own.key}, which the "
        f"{found.source} is for; leave out the endpoint, or {advice}",
        reason="api_key",
    )


def _another_endpoint(endpoint: Endpoint, configured: Sequence[Layer]) -> str | None:
    """What to tell a person whose environment or file names another control plane than the
    API key that goes before them.
    """
    lost = next((layer["endpoint"] for layer in configured if "endpoint" in layer), None)
    if lost is None:
        return None
    try:
        other = parse_endpoint(
            values.text(lost), insecure=False, allow_insecure_credentials=False, source=""
        )
    except ConfigError:  # what has lost is not judged
        return None
    if endpoint.agrees_with(other):
        return None
    return (
        f"the API key is for {endpoint.key} and goes before {other.key} ({lost.source}); "
        f"to use {other.key}, set an API key of it"
    )


def _with_secret(layer: Layer, environ: Mapping[str, str]) -> Layer:
    """The layer with the place of its client secret, if it has one.

    A variable that is not set is no secret: one file often serves people and machines.
    """
    place = layer.get("client_secret_env_var")
    if place is None or not environ.get(str(place.value).strip()):
        place = layer.get("client_secret_location")
    if place is None:
        return layer
    return {**layer, "client_secret": Found("client_secret", place, place.source)}


def _client_secret(found: Found, environ: Mapping[str, str] | None) -> Secret:
    if isinstance(place := found.value, Found):
        if place.setting == "client_secret_location":
            return Secret("file", found.source, str(values.path(place)))
        own = None if environ is os.environ else environ
        return Secret("environment", found.source, values.variable(place), own)
    if isinstance(found.value, Secret):
        return found.value
    if not isinstance(found.value, str):
        raise found.wrong("this is not text", "give the client secret as text")
    return Secret("value", found.source, found.value)


def _headless(given: Layer) -> bool:
    """Whether a login without a browser was asked for. An API key needs neither."""
    headless = given.get("headless")
    if headless is None or not values.flag(headless):
        return False
    if "auth_type" in given and _auth_type(given["auth_type"]) != "DeviceFlow":
        raise headless.wrong(
            "headless means DeviceFlow, and auth_type says otherwise", "leave one of them out"
        )
    return "api_key" not in given


def _who(given: Layer, chosen: Layer, layers: Sequence[Layer]) -> Found | None:
    """What decides on the authType."""
    if _headless(given):
        return Found("auth_type", "DeviceFlow", given["headless"].source)
    said, secret = chosen.get("auth_type"), chosen.get("client_secret")
    if "auth_type" in given or secret is None:
        return said
    if said is not None and str(said.value).strip() == "ClientSecret":
        first = next(layer for layer in layers if layer.keys() & {"auth_type", "client_secret"})
        if "auth_type" in first:
            return said
    return Found("auth_type", "ClientSecret", secret.source)


def _require_identity(settings: Settings, configured: list[Layer]) -> None:
    """Raise ConfigError if the authType lacks what it logs in with."""
    if settings.client_secret is None:
        for layer in configured:
            if place := layer.get("client_secret_env_var"):
                variable = values.variable(place)
                if settings.auth_type == "ClientSecret":
                    raise place.wrong(
                        f"the environment variable {variable} is not set",
                        "set it to the client secret",
                    )
    missing = ""
    meant: tuple[str, ...] = ()
    match settings.auth_type:
        case "ClientSecret" if settings.client_secret is None:
            meant = ("clientSecretLocation", "clientSecretEnvVar")
            missing = (
                "a client secret; set admin.clientSecretLocation or admin.clientSecretEnvVar, "
                "or the argument client_secret"
            )
        case "ClientSecret" if settings.client_id is None:
            meant = ("clientId",)
            missing = (
                "a client id; set admin.clientId, FLYTE_ADMIN_CLIENTID or the argument client_id"
            )
        case "ExternalCommand" if settings.command is None:
            meant = ("command",)
            missing = "a command; set admin.command, FLYTE_AUTH_COMMAND or the argument command"
    if missing:
        source = settings.sources["auth_type"]
        if near := _near(settings.unknown_keys, *meant):
            missing = f"{missing.partition('; ')[0]}: {near}"
        raise ConfigError(
            f"{source}: authType {settings.auth_type} needs {missing}", reason="auth_type"
        )
    if settings.auth_type == "ClientSecret" and settings.client_secret is not None:
        settings.client_secret.read()


def _endpoint(settings: Settings, found: Found | None) -> Endpoint | None:
    if found is None:
        return None
    source = found.source
    if settings.insecure and settings.sources["insecure"] != source:
        source = f"{source} (and {settings.sources['insecure']})"
    return parse_endpoint(
        values.text(found),
        insecure=settings.insecure,
        allow_insecure_credentials=(
            settings.allow_insecure_credentials or settings.auth_type == "NoAuth"
        ),
        source=source,
    )
