"""The control plane as a whole: any request gets a response, and the same one each time."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings, strategies as st

import flyteauth.devserver
from flyteauth._sansio.http import Request, Response
from flyteauth.devserver.model import FAULTS, ControlPlane, Settings, entry_of
from flyteauth.devserver.seed import USER_CODE_ALPHABET, Seed

from .harness import AUTHORIZATION, BASE, DEVICE_CODE, SEED, START, USER_INFO, Peer, basic, reply

PACKAGE = Path(flyteauth.devserver.__file__).parent
PURE = """
    apps authorization browser calls clients connect discovery filters identity issued logins messages
    model pages projects requests runs seed settings shelves showcase signing tasks uploads
""".split()
ROUTES = sorted(ControlPlane(Settings(base_url=BASE), SEED)._routes)

texts = st.text(max_size=40) | st.sampled_from(
    ["flytectl", "demo-ci", "x" * 43, "\r\nx: y", "\ud800", "\u202e", "%ff", "openid", "-1"]
)
names = st.sampled_from(
    sorted(
        {*AUTHORIZATION, "code", "code_verifier", "grant_type", "refresh_token", "device_code"}
        | {"token", "client_secret", "user_code", "username", "decision", "form_token", "prompt"}
    )
)
grants = st.sampled_from(
    ["authorization_code", "refresh_token", "client_credentials", DEVICE_CODE, "password"]
)
parameters = st.lists(st.tuples(names, texts | grants), max_size=8).map(
    lambda pairs: urlencode(pairs, errors="replace")
)
queries = parameters | st.just(urlencode(AUTHORIZATION)) | texts
headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["authorization", "flyte-authorization", "content-type", "cookie", "accept"]
            + ["content-encoding", "connect-protocol-version", "x"]
        ),
        st.sampled_from(
            ["application/json", "application/x-www-form-urlencoded", "Bearer x", "Basic eDp5"]
        )
        | texts
        | texts.map(lambda text: f"Basic {text}")
        | texts.map(lambda text: f"flyteauth_devserver_8080={text}"),
    ),
    max_size=5,
).map(tuple)
urls = (
    st.builds(lambda path, query: f"{BASE}{path}?{query}", st.sampled_from(ROUTES), queries)
    | st.builds(lambda path: f"{BASE}/{path}", texts)
    | texts
    | st.sampled_from(["", "*", "//", "http://[", "http://localhost:99999/", "localhost:1"])
)
bodies = (
    parameters.map(str.encode)
    | st.binary(max_size=60)
    | st.sampled_from([b"{}", b"[]", b'{"limit":"\\ud800"}', b'{"projectId":{"name":{}}}'])
)
methods = st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "PUT"]) | texts
requests = st.builds(Request, method=methods, url=urls, headers=headers, body=bodies)
planes = st.builds(
    lambda approve, faults: ControlPlane(
        Settings(base_url=BASE, approve=approve, faults=faults), SEED
    ),
    st.sampled_from(["auto", "page"]),
    st.frozensets(st.sampled_from(sorted(FAULTS.keys() - {"huge-body"})), max_size=3),
)


def well_formed(response: Response) -> bool:
    for name, value in response.headers:
        assert name == name.lower()
        assert name.isascii()
        assert value.isascii()
        assert value.isprintable()
    if response.header("content-type") == "application/json":
        json.loads(response.body)
    return response.status in {
        200, 302, 303, 400, 401, 403, 404, 405, 415, 421, 429, 501, 502, 503,
    }  # fmt: skip


class TestAnyRequest:
    @settings(max_examples=400)
    @given(planes, st.lists(requests, min_size=1, max_size=4))
    def test_gets_a_sane_response(self, plane: ControlPlane, asked: list[Request]) -> None:
        for index, request in enumerate(asked):
            assert well_formed(plane.handle(request, START + index / 8))
            json.dumps(plane.journal[-1].as_dict())

    @given(requests, st.floats(0, 1e12))
    def test_gets_the_same_response_from_the_same_seed(self, request: Request, at: float) -> None:
        first, second = (
            ControlPlane(Settings(base_url=BASE), SEED).handle(request, at) for _ in range(2)
        )
        assert first == second

    @settings(max_examples=400)
    @given(st.lists(st.tuples(names, texts), max_size=6), grants, st.booleans())
    def test_a_guess_never_gives_a_user_token(
        self, form: list[tuple[str, str]], grant_type: str, page: bool
    ) -> None:
        peer = Peer(approve="page" if page else "auto")
        issued = peer.device()
        peer.code() if not page else None
        guess = {"client_id": "flytectl", **dict(form), "grant_type": grant_type}
        sent = urlencode(guess, errors="replace").encode()
        content_type = (("content-type", "application/x-www-form-urlencoded"),)
        response = peer.send("POST", "/oauth2/token", content_type, sent)
        assert response.status in {400, 401}
        assert issued["device_code"].encode() not in response.body


class TestDispatch:
    def test_an_unknown_path_is_404_as_text_or_as_a_page(self) -> None:
        peer = Peer()
        assert peer.get("/nowhere").body == b"404 page not found\n"
        assert b"<html" in peer.get("/nowhere", accept="text/html,*/*").body

    def test_a_wrong_method_names_the_right_ones(self) -> None:
        response = Peer().send("DELETE", "/activate")
        assert response.status == 405
        assert response.header("allow") == "GET, POST"

    def test_head_is_get(self) -> None:
        peer = Peer()
        assert peer.send("HEAD", "/oauth2/jwks") == peer.get("/oauth2/jwks")

    @pytest.mark.parametrize(
        "url",
        [
            "http://localhost/me",
            "http://127.0.0.1:1/me",
            "http://[::1]:1/me",
            "/me",
            "HTTP://LOCALHOST/me",
        ],
    )
    def test_every_name_of_this_machine_is_served(self, url: str) -> None:
        assert Peer().send("GET", url).status == 401

    @pytest.mark.parametrize(
        "url", ["http://evil.example/me", "http://localhost.evil.example/me", "http://10.0.0.1/me"]
    )
    def test_no_other_name_is(self, url: str) -> None:
        assert Peer().send("GET", url).status == 421

    def test_the_configured_name_is_served(self) -> None:
        plane = ControlPlane(Settings(base_url="https://control.example"), SEED)
        assert plane.handle(Request("GET", "https://control.example/me"), START).status == 401

    @pytest.mark.parametrize(
        "url", ["me", "*", "http:/me", "http://[", "ftp://localhost/me", "/m e", "/é"]
    )
    def test_what_is_no_target_is_refused(self, url: str) -> None:
        plane = ControlPlane(Settings(base_url=BASE), SEED)
        assert plane.handle(Request("GET", url), START).status == 400

    def test_over_https_the_cookie_is_secure(self) -> None:
        plane = ControlPlane(Settings(base_url="https://control.example"), SEED)
        response = plane.handle(Request("GET", "https://control.example/activate"), START)
        assert "; Secure" in (response.header("set-cookie") or "")


class TestJournal:
    def test_it_tells_what_was_asked_and_how_it_went(self) -> None:
        peer = Peer()
        token = peer.login()["access_token"]
        peer.at += 1
        peer.call(USER_INFO, token)
        assert [entry.as_dict() for entry in peer.plane.journal] == [
            {
                "at": START,
                "method": "GET",
                "path": "/oauth2/authorize",
                "grant_type": None,
                "status": 302,
                "credential": None,
            },
            {
                "at": START,
                "method": "POST",
                "path": "/oauth2/token",
                "grant_type": "authorization_code",
                "status": 200,
                "credential": None,
            },
            {
                "at": START + 1,
                "method": "POST",
                "path": USER_INFO,
                "grant_type": None,
                "status": 200,
                "credential": "authorization",
            },
        ]

    def test_it_counts(self) -> None:
        peer = Peer()
        peer.service()
        peer.service()
        peer.token(grant_type="client_credentials")
        assert peer.plane.count() == 3
        assert peer.plane.count(grant_type="client_credentials") == 3
        assert peer.plane.count(grant_type="client_credentials", status=200) == 2
        assert peer.plane.count(path="/oauth2/revoke") == 0

    def test_it_does_not_grow_for_ever(self) -> None:
        peer = Peer()
        for _ in range(10_500):
            peer.send("GET", "/nowhere")
        assert len(peer.plane.journal) <= 10_000

    @pytest.mark.parametrize(
        "name", ["Authorization", "flyte-authorization", "Proxy-Authorization"]
    )
    def test_the_credential_is_the_name_of_the_header(self, name: str) -> None:
        request = Request("GET", f"{BASE}/me", ((name, "bearer secret"),))
        entry = entry_of(request, Response(401), START)
        assert entry.credential == name.lower()
        assert "secret" not in json.dumps(entry.as_dict())

    def test_basic_is_no_token(self) -> None:
        request = Request("GET", f"{BASE}/me", basic("a", "b"))
        assert entry_of(request, Response(401), START).credential is None

    def test_a_secret_in_the_wrong_field_is_not_kept(self) -> None:
        peer = Peer()
        peer.token(grant_type="S3cret/Value")
        assert peer.plane.journal[-1].grant_type == "?"

    def test_no_secret_is_in_it(self) -> None:
        peer = Peer()
        tokens = peer.login()
        newer = reply(peer.refresh(tokens["refresh_token"]))
        peer.get(f"/me?access_token={newer['access_token']}")
        kept = json.dumps([entry.as_dict() for entry in peer.plane.journal])
        for secret in (*tokens.values(), *newer.values()):
            assert not isinstance(secret, str) or len(secret) < 20 or secret not in kept


class TestSecrets:
    def test_another_seed_gives_other_secrets(self) -> None:
        first, second = (
            ControlPlane(Settings(), seed) for seed in (b"one seed, 16 byte", b"two seed, 16 byte")
        )
        assert first.service_client[1] != second.service_client[1]

    def test_a_short_seed_is_refused(self) -> None:
        with pytest.raises(ValueError, match="16 bytes"):
            ControlPlane(Settings(), b"short")

    def test_the_seed_is_in_no_repr(self) -> None:
        assert repr(Seed(SEED)) == "Seed()"
        plane = ControlPlane(Settings(), SEED)
        secret = plane.service_client[1]
        assert secret not in repr(plane._server.clients.service)

    def test_parts_of_a_mac_keep_apart(self) -> None:
        seed = Seed(SEED)
        assert len({seed.mac("ab", "c"), seed.mac("a", "bc"), seed.mac("abc"), seed.mac()}) == 4

    def test_no_secret_comes_twice(self) -> None:
        seed = Seed(SEED)
        secrets = [seed.next(kind) for kind in ("code", "token") for _ in range(500)]
        assert len(set(secrets)) == 1000
        assert all(len(secret) == 43 for secret in secrets)

    def test_every_letter_of_a_user_code_is_used(self) -> None:
        seed = Seed(SEED)
        codes = [seed.next_user_code() for _ in range(200)]
        assert set("".join(codes)) == {*USER_CODE_ALPHABET, "-"}
        assert len(set(codes)) == 200

    def test_the_api_key_has_four_parts_behind_the_scheme_and_no_colon_in_the_secret(self) -> None:
        from base64 import b64decode

        plane = ControlPlane(Settings(base_url="http://localhost:1234"), SEED)
        client_id, secret = plane.service_client
        assert ":" not in secret
        decoded = b64decode(plane.api_key, validate=True).decode()
        assert decoded == f"http://localhost:1234:{client_id}:{secret}:None"


def test_the_address_of_a_run_leads_to_a_page_that_says_what_there_is() -> None:
    peer = Peer()
    shown = peer.get("/v2/domain/development/project/flytesnacks/runs/r1")
    assert shown.status == 200
    assert b"There is no console here" in shown.body
    assert peer.send("POST", "/v2/x").status == 405


class TestPurity:
    """No clock, no randomness, no I/O, no concurrency: what may be imported says it all."""

    allowed = {
        "__future__", "attrs", "base64", "collections.abc", "datetime", "hashlib", "hmac", "html", "json",
        "re", "typing", "urllib.parse",
    }  # fmt: skip

    @pytest.mark.parametrize("name", PURE)
    def test_a_pure_module_imports_only_what_is_pure(self, name: str) -> None:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.AsyncFunctionDef | ast.Await)
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= self.allowed
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                if node.level == 0:
                    assert module in self.allowed
                elif node.level == 1:
                    used = {module} if module else {alias.name for alias in node.names}
                    assert used <= set(PURE)
                else:
                    assert (node.level, module) == (2, "_sansio.http")
