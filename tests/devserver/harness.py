"""A client and a browser for the control plane, without sockets and with a clock of our own."""

from __future__ import annotations

import json
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from flyteauth._sansio.http import Headers, Request, Response
from flyteauth.devserver.model import ControlPlane, Settings

SEED = b"a seed for tests, not a secret"
BASE = "http://localhost:8080"
START = 1000.0

# RFC 7636 App. B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REDIRECT_URI = "http://localhost:53593/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

AUTHORIZATION = {
    "client_id": "flytectl",
    "response_type": "code",
    "scope": "offline all",
    "redirect_uri": REDIRECT_URI,
    "state": "state-0123456789",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
USER_INFO = "/flyteidl2.auth.IdentityService/UserInfo"
LIST_PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
LIST_TASKS = "/flyteidl2.task.TaskService/ListTasks"
LIST_APPS = "/flyteidl2.app.AppService/List"


class Peer:
    """Whoever talks to a control plane; ``at`` is the time and never runs by itself."""

    def __init__(self, *faults: str, approve: str = "auto", **settings: Any) -> None:
        self.plane = ControlPlane(
            Settings(base_url=BASE, approve=approve, faults=frozenset(faults), **settings),  # type: ignore[arg-type]
            SEED,
        )
        self.at = START

    def send(self, method: str, url: str, headers: Headers = (), body: bytes = b"") -> Response:
        url = f"{BASE}{url}" if url.startswith("/") else url
        return self.plane.handle(Request(method, url, headers, body), self.at)

    def get(self, url: str, **headers: str) -> Response:
        return self.send("GET", url, tuple(headers.items()))

    def post(self, url: str, form: dict[str, str], headers: Headers = ()) -> Response:
        content_type = ("content-type", "application/x-www-form-urlencoded")
        return self.send("POST", url, (content_type, *headers), urlencode(form).encode())

    def call(self, path: str, token: str | None = None, message: object = None) -> Response:
        headers = [("content-type", "application/json")]
        if token is not None:
            headers.append(("authorization", f"Bearer {token}"))
        return self.send("POST", path, tuple(headers), json.dumps(message or {}).encode())

    def good(self, token: str) -> bool:
        """Whether a protected call takes the token."""
        status = self.call(USER_INFO, token).status
        assert status in {200, 401}
        return status == 200

    # Grants.

    def authorize(self, **changes: str | None) -> Response:
        query = {**AUTHORIZATION, **changes}
        present = {name: value for name, value in query.items() if value is not None}
        return self.get(f"/oauth2/authorize?{urlencode(present)}")

    def code(self, **changes: str | None) -> str:
        return answer(self.authorize(**changes))["code"]

    def token(self, headers: Headers = (), /, **form: str) -> Response:
        return self.post("/oauth2/token", form, headers)

    def redeem(self, code: str, /, **changes: str) -> Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": "flytectl",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        }
        return self.token(**{**form, **changes})

    def login(self, **changes: str | None) -> dict[str, Any]:
        return reply(self.redeem(self.code(**changes)))

    def refresh(self, refresh_token: str, /, **changes: str) -> Response:
        form = {
            "grant_type": "refresh_token",
            "client_id": "flytectl",
            "refresh_token": refresh_token,
        }
        return self.token(**{**form, **changes})

    def device(self, **changes: str) -> dict[str, Any]:
        form = {"client_id": "flytectl", "scope": "offline all", **changes}
        return reply(self.post("/oauth2/device_authorization", form))

    def poll(self, device_code: str, /, **changes: str) -> Response:
        form = {"grant_type": DEVICE_CODE, "client_id": "flytectl", "device_code": device_code}
        return self.token(**{**form, **changes})

    def service(self) -> dict[str, Any]:
        headers = basic(*self.plane.service_client)
        return reply(self.token(headers, grant_type="client_credentials"))

    def revoke(self, token: str, /, **changes: str) -> Response:
        return self.post("/oauth2/revoke", {"client_id": "flytectl", "token": token, **changes})


def basic(name: str, password: str) -> Headers:
    pair = b64encode(f"{name}:{password}".encode()).decode()
    return (("authorization", f"Basic {pair}"),)


def body(response: Response) -> dict[str, Any]:
    parsed = json.loads(response.body)
    assert isinstance(parsed, dict)
    return parsed


def reply(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.body
    return body(response)


def error(response: Response) -> str:
    """The error code of a refused OAuth request."""
    assert response.status in {400, 401}
    return str(body(response)["error"])


def answer(response: Response) -> dict[str, str]:
    """The parameters of a redirect to the client."""
    assert response.status in {302, 303}, response.body
    location = response.header("location") or ""
    assert location.startswith(f"{REDIRECT_URI}?")
    parsed = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(values) == 1 for values in parsed.values())
    return {name: values[0] for name, values in parsed.items()}


class Page(HTMLParser):
    """What a person sees, and the first form on it."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.decisions: list[str] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(response.body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "form":
            self.action = found["action"]
        elif tag == "input":
            self.fields[str(found["name"])] = found.get("value") or ""
        elif tag == "button":
            self.decisions.append(str(found["value"]))

    def handle_data(self, data: str) -> None:
        self.text += data


class Person:
    """A person with a browser: keeps a cookie, fills in forms, follows redirects within."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.cookies: dict[str, str] = {}

    def open(self, url: str) -> Page:
        return self._went(self.peer.send("GET", url, self._headers()))

    def submit(self, page: Page, decision: str | None = None, **typed: str) -> Page:
        assert page.action is not None
        form = {**page.fields, **typed}
        if decision is not None:
            assert decision in page.decisions
            form["decision"] = decision
        return self._went(self.peer.post(page.action, form, self._headers()))

    def log_in(self, page: Page, username: str = "bob") -> Page:
        return self.submit(page, "login", username=username)

    def _headers(self) -> Headers:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return (("cookie", cookies), ("accept", "text/html")) if cookies else ()

    def _went(self, response: Response) -> Page:
        for name, value in response.headers:
            if name == "set-cookie":
                pair = value.partition(";")[0].partition("=")
                self.cookies[pair[0]] = pair[2]
        location = response.header("location") or ""
        if location.startswith(BASE):
            return self.open(location)
        return Page(response)


def authorization_url(**changes: str) -> str:
    return f"/oauth2/authorize?{urlencode({**AUTHORIZATION, **changes})}"
