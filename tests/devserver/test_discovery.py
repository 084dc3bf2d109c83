"""What the control plane says about itself, in Flyte 2's words, Flyte 1's and the RFCs'."""

from __future__ import annotations

import json

import pytest

from flyteauth._sansio.http import Headers

from .harness import BASE, Peer, body, reply

METADATA = "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"
CLIENT = "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"
EXACT = {"accept": "application/json"}


class TestConnect:
    def test_the_metadata_are_camel_case_and_name_no_revocation(self) -> None:
        found = reply(Peer().call(METADATA))
        assert found["issuer"] == BASE
        assert found["authorizationEndpoint"] == f"{BASE}/oauth2/authorize"
        assert found["tokenEndpoint"] == f"{BASE}/oauth2/token"
        assert found["deviceAuthorizationEndpoint"] == f"{BASE}/oauth2/device_authorization"
        assert found["jwksUri"] == f"{BASE}/oauth2/jwks"
        assert found["responseTypesSupported"] == ["code"]
        assert found["codeChallengeMethodsSupported"] == ["S256"]
        assert {"offline", "all"} <= set(found["scopesSupported"])
        assert not any("evocation" in name or "_" in name for name in found)

    def test_the_client_is_flytes_own(self) -> None:
        assert reply(Peer().call(CLIENT)) == {
            "clientId": "flytectl",
            "redirectUri": "http://localhost:53593/callback",
            "scopes": ["offline", "all"],
            "authorizationMetadataKey": "authorization",
            "serviceHttpEndpoint": BASE,
        }

    def test_a_data_plane_is_named_if_there_is_one(self) -> None:
        peer = Peer(dataplane_domain="dp.example.com")
        assert reply(peer.call(CLIENT))["dataplaneDomain"] == "dp.example.com"
        gateway = reply(peer.send("GET", "/config/v1/flyte_client", tuple(EXACT.items())))
        assert gateway["dataplane_domain"] == "dp.example.com"

    @pytest.mark.parametrize("path", [METADATA, CLIENT])
    def test_get_is_the_same_call(self, path: str) -> None:
        peer = Peer()
        query = "?connect=v1&encoding=json&message=%7B%7D"
        assert reply(peer.get(path + query)) == reply(peer.call(path))
        assert reply(peer.get(path)) == reply(peer.call(path))

    @pytest.mark.parametrize(
        ("method", "query", "headers", "sent", "status"),
        [
            ("POST", "", (("content-type", "application/proto"),), b"", 415),
            ("POST", "", (), b"{}", 415),
            ("POST", "", (("content-type", "application/json"),), b"", 400),
            ("POST", "", (("content-type", "application/json"),), b"[]", 400),
            ("POST", "", (("content-type", "application/json"),), b"\xff", 400),
            ("POST", "", (("content-type", "application/json"),), b"[" * 100_000, 400),
            (
                "POST",
                "",
                (("content-type", "application/json"), ("connect-protocol-version", "2")),
                b"{}",
                400,
            ),
            (
                "POST",
                "",
                (("content-type", "application/json"), ("content-encoding", "gzip")),
                b"{}",
                501,
            ),
            ("GET", "?connect=v1&encoding=proto&message=", (), b"", 400),
            ("GET", "?connect=v1&encoding=json&base64=1&message=e30", (), b"", 400),
            ("GET", "?connect=v1&encoding=json&message=x", (), b"", 400),
            ("PUT", "", (), b"", 405),
        ],
    )
    @pytest.mark.parametrize("path", [METADATA, CLIENT])
    def test_another_protocol_is_refused(
        self, path: str, method: str, query: str, headers: Headers, sent: bytes, status: int
    ) -> None:
        assert Peer().send(method, path + query, headers, sent).status == status


class TestFlyte1:
    def test_exactly_this_accept_gives_snake_case(self) -> None:
        found = reply(Peer().get("/config/v1/flyte_client", **EXACT))
        assert found == {
            "client_id": "flytectl",
            "redirect_uri": "http://localhost:53593/callback",
            "scopes": ["offline", "all"],
            "authorization_metadata_key": "authorization",
            "service_http_endpoint": BASE,
            "audience": "",
        }

    @pytest.mark.parametrize("accept", [{}, {"accept": "*/*"}, {"accept": "application/json, */*"}])
    def test_any_other_accept_gives_camel_case(self, accept: dict[str, str]) -> None:
        peer = Peer()
        assert "clientId" in reply(peer.get("/config/v1/flyte_client", **accept))
        found = reply(peer.get("/.well-known/oauth-authorization-server", **accept))
        assert "tokenEndpoint" in found

    def test_me_is_user_info(self) -> None:
        peer = Peer()
        token = peer.login()["access_token"]
        header = {"flyte-authorization": f"Bearer {token}"}
        assert reply(peer.get("/me", **EXACT, **header))["preferred_username"] == "alice"
        assert reply(peer.get("/me", **header))["preferredUsername"] == "alice"

    def test_me_refuses_with_the_gateways_words(self) -> None:
        response = Peer().get("/me", authorization="Bearer x")
        assert response.status == 401
        assert body(response)["code"] == 16
        assert "invalid_token" in (response.header("www-authenticate") or "")


class TestWellKnown:
    def test_rfc_8414_names_everything(self) -> None:
        found = reply(Peer().get("/.well-known/oauth-authorization-server", **EXACT))
        assert found["issuer"] == BASE
        assert found["revocation_endpoint"] == f"{BASE}/oauth2/revoke"
        assert found["authorization_response_iss_parameter_supported"] is True
        assert found["token_endpoint_auth_methods_supported"] == [
            "client_secret_basic",
            "client_secret_post",
            "none",
        ]
        assert set(found["grant_types_supported"]) == {
            "authorization_code",
            "refresh_token",
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:device_code",
        }

    def test_openid_is_snake_case_for_everybody(self) -> None:
        found = reply(Peer().get("/.well-known/openid-configuration"))
        assert found["issuer"] == BASE
        assert found["id_token_signing_alg_values_supported"] == ["RS256"]
        assert found["subject_types_supported"] == ["public"]

    def test_every_endpoint_that_is_named_is_there(self) -> None:
        peer = Peer()
        found = reply(peer.get("/.well-known/openid-configuration"))
        for name, url in found.items():
            if name.endswith(("_endpoint", "_uri")):
                assert peer.get(url).status != 404, name

    def test_an_issuer_with_a_path_is_found_where_the_rfcs_look(self) -> None:
        issuer = f"{BASE}/tenant"
        peer = Peer(issuer=issuer)
        for path in (
            "/.well-known/oauth-authorization-server/tenant",
            "/tenant/.well-known/openid-configuration",
        ):
            assert reply(peer.get(path, **EXACT))["issuer"] == issuer

    def test_the_documents_are_json(self) -> None:
        response = Peer().get("/.well-known/openid-configuration")
        assert response.header("content-type") == "application/json"
        json.loads(response.body)
