"""
The embedded control plane, pure: a request and the time go in, a response comes out.

``ControlPlane.handle`` is all there is to it. It reads no clock and no randomness and does no
I/O: time is an argument, and every secret comes from the seed. So one model stands behind tests
without sockets, the demo, the benchmarks and ``flyteauth devserver``.

Any request gets a response, whatever is in it::

    plane = ControlPlane(Settings(approve="auto"), seed=b"sixteen bytes ...")
    response = plane.handle(request, at=1000.0)
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import asdict, frozen

from .._sansio.http import Headers, Request, Response
from . import discovery, pages, showcase, signing
from .apps import Apps
from .authorization import AuthorizationServer
from .browser import Browser
from .calls import USER_INFO, Call, user_info
from .clients import SERVICE_CLIENT_ID
from .connect import ConnectError, Message, Reply, read_message
from .identity import DEFAULT_USER
from .issued import AccessToken
from .messages import (
    Refusal,
    Target,
    bearer_tokens,
    json_response,
    parse_form,
    target_of,
    text_response,
)
from .projects import Projects
from .runs import Runs
from .seed import Seed
from .settings import FAULTS, Approval, Settings
from .shelves import Shelves
from .tasks import Tasks
from .uploads import PATH as UPLOADS, Uploads

__all__ = ["FAULTS", "Approval", "ControlPlane", "Entry", "Settings", "entry_of"]

TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105 - a path
CONSOLE: Final = "/v2/"  # where Flyte's tools say that a person can look
METADATA: Final = "/flyteidl2.auth.AuthMetadataService"
_JOURNAL_MAX: Final = 10_000
_LOGIN_PROXY: Final = "https://login.example.com/oauth2/start"

Handler = Callable[[Request, Target, float], Response]


@frozen
class Entry:
    """What was asked and how it went; never a secret.

    ``credential`` is the lower-case name of the header that carried a token, or None.
    """

    at: float
    method: str
    path: str
    grant_type: str | None
    status: int
    credential: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def entry_of(request: Request, response: Response, at: float) -> Entry:
    """The journal entry of one exchange."""
    target = target_of(request.url)
    grant_type = None
    if target is not None and target.path == TOKEN_PATH and request.method == "POST":
        try:
            grant_type = parse_form(request).get("grant_type")
        except Refusal:
            grant_type = None
        # Anything may stand there, also a secret that was put into the wrong field.
        if grant_type is not None and not re.fullmatch(r"[a-z0-9:_-]{1,80}", grant_type):
            grant_type = "?"
    credential = next((name for name, _ in bearer_tokens(request.headers)), None)
    path = "?" if target is None else target.path
    return Entry(at, request.method, path, grant_type, response.status, credential)


class ControlPlane:
    """A Flyte control plane with its own authorization server."""

    def __init__(
        self, settings: Settings, seed: bytes, *, shelves: Shelves | None = None, start: int = 0
    ) -> None:
        """*shelves* hold what another run has left, and *start* counts the runs: what is drawn
        from one seed must not come again.
        """
        self.settings = settings
        self.journal: list[Entry] = []
        self.shelves = Shelves() if shelves is None else shelves
        source = Seed(seed, start)
        self._server = AuthorizationServer(settings, source, self.shelves)
        self._browser = Browser(settings, source, self._server)
        projects = Projects(self.shelves)
        tasks = Tasks(self.shelves, projects)
        self.uploads = Uploads(settings, self.shelves, projects, source)
        self._open: Mapping[str, Call] = {
            f"{METADATA}/GetOAuth2Metadata": lambda *_: discovery.flyte_metadata(settings),
            f"{METADATA}/GetPublicClientConfig": lambda *_: discovery.camel_case(
                discovery.public_client(settings)
            ),
        }
        self._calls: Mapping[str, Call] = {
            USER_INFO: lambda _message, access, _at: user_info(access),
            **projects.calls,
            **tasks.calls,
            **Runs(self.shelves, projects, tasks, source).calls,
            **self.uploads.calls,
            **Apps(settings, source, self._server, self.shelves).calls,
            "/flyteidl2.app.AppService/List": lambda message, *_: showcase.list_apps(message),
            "/flyteidl2.app.AppService/Get": lambda message, *_: _app(message),
            # An empty answer says: stay with this server.
            "/flyteidl2.cluster.ClusterService/SelectCluster": lambda *_: {},
        }
        self._routes = self._build_routes()

    def handle(self, request: Request, at: float) -> Response:
        """The response to *request*, which arrived at *at* (POSIX seconds)."""
        response = self._answer(request, at)
        self.note(request, response, at)
        return response

    def note(self, request: Request, response: Response, at: float) -> None:
        """Enter an exchange into the journal."""
        self.journal.append(entry_of(request, response, at))
        if len(self.journal) > _JOURNAL_MAX:
            del self.journal[: _JOURNAL_MAX // 10]

    # A call in another encoding than handle understands: first screen, then call.

    def screen(self, request: Request, at: float) -> Response | None:
        """What refuses *request*, a call, whatever its message says; None if nothing does."""
        self._server.forget(at)
        target = target_of(request.url)
        if target is None or not self.settings.serves(target.host):
            return self._answer(request, at)
        try:
            if target.path in self._open:
                return self._disturbance(request, target.path)
            if (elsewhere := self._login_proxy()) is not None:
                return elsewhere
            self._admitted(request, target.path, at)
        except ConnectError as error:
            return error.response()
        return None

    def call(self, procedure: str, message: Message, headers: Headers, at: float) -> Reply:
        """What the call of *procedure* returns, as JSON. Raises ConnectError."""
        if procedure in self._open:
            return self._open[procedure](message, None, at)
        access = self._admitted(Request("POST", "", headers), procedure, at)
        rule = self._calls.get(procedure)
        if rule is None:
            raise ConnectError("unimplemented", f"{procedure[1:]} is not implemented")
        return rule(message, access, at)

    # Beside HTTP, for tests and demonstrations.

    def approve(self, user_code: str, user: str = DEFAULT_USER) -> None:
        """Lets *user* allow the device that shows *user_code*."""
        self._decide(user_code, user)

    def deny(self, user_code: str) -> None:
        """Lets the user deny the device that shows *user_code*."""
        self._decide(user_code, None)

    def count(
        self,
        *,
        path: str | None = None,
        grant_type: str | None = None,
        status: int | None = None,
    ) -> int:
        """How many entries of the journal have these values."""
        wanted = {"path": path, "grant_type": grant_type, "status": status}
        set_ones = {name: value for name, value in wanted.items() if value is not None}
        return sum(
            all(getattr(entry, name) == value for name, value in set_ones.items())
            for entry in tuple(self.journal)
        )

    def access(self, token: str, at: float) -> AccessToken | None:
        """What an access token stands for at that moment; None if it is not good."""
        return self._server.access(token, at)

    @property
    def service_client(self) -> tuple[str, str]:
        """Id and secret of the registered service client."""
        return SERVICE_CLIENT_ID, self._server.clients.service.client_secret or ""

    @property
    def api_key(self) -> str:
        """The service client's API key, as Flyte encodes one, with scheme and port."""
        client_id, secret = self.service_client
        return b64encode(f"{self.settings.base_url}:{client_id}:{secret}:None".encode()).decode()

    def _decide(self, user_code: str, username: str | None) -> None:
        grant = self._server.device_grant(user_code, None)
        if grant is None or not grant.pending:
            raise LookupError("no device waits with this user code")
        self._server.decide(grant, username)

    # Dispatch.

    def _answer(self, request: Request, at: float) -> Response:
        self._server.forget(at)
        target = target_of(request.url)
        if target is None:
            return text_response(400, "The request target is not valid.")
        if not self.settings.serves(target.host):
            return text_response(421, "This host name is not served here.")
        method = "GET" if request.method == "HEAD" else request.method
        routes = self._routes.get(target.path)
        if target.path.startswith(CONSOLE):
            routes = {"GET": self._console}
        if target.path.startswith(UPLOADS):
            routes = {"PUT": self.uploads.put}
        if routes is None:
            return _not_found(request)
        handler = routes.get(method)
        if handler is None:
            allow = ", ".join(routes)
            return text_response(405, "This method is not allowed here.", (("allow", allow),))
        try:
            return handler(request, target, at)
        except ConnectError as error:
            return error.response()

    def _build_routes(self) -> dict[str, dict[str, Handler]]:
        routes: dict[str, dict[str, Handler]] = {"/": {"GET": self._home}}
        for path, document in self._documents().items():
            routes[path] = {"GET": self._disturbed(path, document)}
        for path in self._open:
            answer = self._disturbed(path, self._call)
            routes[path] = {"GET": answer, "POST": answer}
        for path in self._calls:
            routes[path] = {"POST": self._call}
        routes["/me"] = {"GET": self._me}
        if not self.settings.fault("no-auth"):
            routes |= self._authorization_routes()
        return routes

    def _authorization_routes(self) -> dict[str, dict[str, Handler]]:
        server, browser = self._server, self._browser
        routes: dict[str, dict[str, Handler]] = {
            "/oauth2/authorize": {"GET": browser.authorize, "POST": browser.authorize},
            "/activate": {"GET": browser.activate, "POST": browser.activate},
            TOKEN_PATH: {"POST": lambda request, _, at: server.token(request, at)},
            "/oauth2/revoke": {"POST": lambda request, _, at: server.revoke(request, at)},
            "/oauth2/jwks": {"GET": lambda request, _, at: json_response(200, signing.jwks())},
        }
        if not self.settings.fault("no-device"):
            routes["/oauth2/device_authorization"] = {
                "POST": lambda request, _, at: server.device_authorization(request, at)
            }
        return routes

    # Discovery.

    def _documents(self) -> Mapping[str, Handler]:
        issuer_path = urlsplit(self.settings.issuer).path
        return {
            "/config/v1/flyte_client": self._flyte1_client,
            "/.well-known/oauth-authorization-server": self._well_known,
            # RFC 8414 §3.1 puts the well-known part before the issuer's path, OpenID behind it.
            f"/.well-known/oauth-authorization-server{issuer_path}": self._well_known,
            "/.well-known/openid-configuration": self._openid_configuration,
            f"{issuer_path}/.well-known/openid-configuration": self._openid_configuration,
        }

    def _disturbed(self, path: str, document: Handler) -> Handler:
        """The document, unless a fault stands before it."""

        def answer(request: Request, target: Target, at: float) -> Response:
            return self._disturbance(request, path) or document(request, target, at)

        return answer

    def _disturbance(self, request: Request, path: str) -> Response | None:
        """What answers in place of the document at *path*. Raises ConnectError."""
        fault = self.settings.fault
        connect = path in self._open
        if fault("html-discovery"):
            return pages.console()
        if fault("login-redirect"):
            return self._login_proxy()
        if fault("discovery-503"):
            return pages.proxy(503, (("retry-after", "1"),))
        if connect and fault("no-auth"):
            raise ConnectError("unimplemented", "no authorization server is configured")
        if fault("no-auth") or (connect and fault("flyte1-only")):
            return _not_found(request)
        return None

    def _login_proxy(self) -> Response | None:
        if self.settings.fault("login-redirect"):
            return Response(302, (("location", _LOGIN_PROXY),))
        return None

    def _flyte1_client(self, request: Request, target: Target, at: float) -> Response:
        # Unlike Connect, Flyte 1's gateway writes empty fields.
        return _gateway(request, {**discovery.public_client(self.settings), "audience": ""})

    def _well_known(self, request: Request, target: Target, at: float) -> Response:
        return _gateway(request, discovery.metadata(self.settings))

    def _openid_configuration(self, request: Request, target: Target, at: float) -> Response:
        return json_response(200, discovery.openid_configuration(self.settings))

    # Calls.

    def _call(self, request: Request, target: Target, at: float) -> Response:
        """A unary call in JSON."""
        if (elsewhere := self._login_proxy()) is not None:
            return elsewhere
        if target.path not in self._open:
            self._admitted(request, target.path, at)  # who may not call learns no more
        message = read_message(request, target)
        if isinstance(message, Response):
            return message
        return json_response(200, self.call(target.path, message, request.headers, at))

    def _admitted(self, request: Request, procedure: str, at: float) -> AccessToken | None:
        """Whose token it is, if it is one for that procedure. Raises ConnectError."""
        access = self._authenticated(request, at)
        if access is None or procedure == USER_INFO or "all" in access.scopes:
            return access
        challenge = 'Bearer error="insufficient_scope", scope="all"'  # RFC 6750 §3.1
        raise ConnectError("permission_denied", "the scope all is required", _challenge(challenge))

    def _me(self, request: Request, target: Target, at: float) -> Response:
        """Flyte 1's spelling of UserInfo, and of its errors."""
        try:
            access = self._authenticated(request, at)
        except ConnectError as error:
            message = {"code": 16, "message": error.message, "details": []}
            return json_response(401, message, error.headers)
        known = user_info(access)
        if "preferredUsername" in known:
            known["preferred_username"] = known.pop("preferredUsername")
        return _gateway(request, known)

    def _authenticated(self, request: Request, at: float) -> AccessToken | None:
        """Whose token came with the request; None on an anonymous control plane."""
        fault = self.settings.fault
        if fault("no-auth"):
            return None
        accepted = {discovery.FLYTE_AUTHORIZATION}
        if not fault("custom-header-key"):
            accepted.add(discovery.AUTHORIZATION)
        tokens = [token for name, token in bearer_tokens(request.headers) if name in accepted]
        for token in tokens:
            access = self._server.access(token, at)
            if access is not None and not fault("always-401"):
                return access
        # RFC 6750 §3.1: without a token there is nothing to call invalid.
        error = 'Bearer realm="flyteauth", error="invalid_token"'
        raise ConnectError(
            "unauthenticated",
            "the token is not valid" if tokens else "a token is required",
            _challenge(error if tokens else 'Bearer realm="flyteauth"'),
        )

    def _console(self, request: Request, target: Target, at: float) -> Response:
        return pages.page_response(200, pages.no_console(self.settings.endpoint))

    def _home(self, request: Request, target: Target, at: float) -> Response:
        if self.settings.fault("html-discovery"):
            return pages.console()
        return pages.page_response(200, pages.home(self.settings.endpoint))


def _app(message: Message) -> Reply:
    app = showcase.get_app(message)
    if app is None:
        raise ConnectError("not_found", "there is no such app")
    return app


def _challenge(value: str) -> Headers:
    return (("www-authenticate", value),)


def _gateway(request: Request, document: dict[str, Any]) -> Response:
    """Flyte 1's gateway writes snake_case for exactly this Accept, camelCase for any other."""
    exact = request.header("accept") == "application/json"
    return json_response(200, document if exact else discovery.camel_case(document))


def _not_found(request: Request) -> Response:
    if "text/html" in (request.header("accept") or ""):
        page = pages.error("Not found", "There is no page at this address.")
        return pages.page_response(404, page)
    return text_response(404, "404 page not found")
