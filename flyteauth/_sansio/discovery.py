"""
Discovery: where the authorization server is, and as whom to talk to it.

A Flyte control plane is asked two things, each first over Connect (Flyte 2), then over its HTTP
gateway (Flyte 1): the authorization server's metadata, and the public client's settings. An
issuer that the user names is asked for RFC 8414 and OpenID Connect Discovery 1.0 metadata, and
the two documents are merged. All three are one machine::

    Asking ◄─► Pausing
      │ ▲ └──► Done
      └─┘ the next place, or where a redirect leads
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, Generic, TypeVar, assert_never
from urllib.parse import urljoin, urlsplit

from attrs import evolve, field, frozen

from .client import AuthorizationServer, parse_metadata
from .errors import ConfigError, FlowError, InvalidResponse, UnexpectedEvent, Unreachable, quote
from .flow import (
    Backoff,
    Done,
    Effect,
    Event,
    Flow,
    RequestFailed,
    ResponseReceived,
    SendRequest,
    TimeReached,
    WaitUntil,
    failure,
)
from .http import (
    Object,
    Request,
    Response,
    get,
    host_of,
    is_html,
    is_secure,
    member,
    origin,
    parse_object,
    plain_host,
    post_json,
    repeated,
    same_path,
    split_url,
    texts,
)
from .origins import data_plane_domain
from .tokens import transient

T = TypeVar("T")

# What says that a document is not here: to an issuer's own, RFC 8414 has one such status.
_ABSENT: Final = frozenset({404, 405, 415, 501})
_ABSENT_AT_ISSUER: Final = frozenset({404})

REDIRECTS_MAX: Final = 3
BACKOFF: Final = Backoff()

OAUTH2_METADATA: Final = "/flyteidl2.auth.AuthMetadataService/GetOAuth2Metadata"
PUBLIC_CLIENT: Final = "/flyteidl2.auth.AuthMetadataService/GetPublicClientConfig"
WELL_KNOWN_OAUTH: Final = "/.well-known/oauth-authorization-server"
WELL_KNOWN_OPENID: Final = "/.well-known/openid-configuration"
FLYTE_CLIENT: Final = "/config/v1/flyte_client"


@frozen
class PublicClient:
    """The client registration that a control plane advertises (flyteidl2.auth)."""

    client_id: str | None = None
    redirect_uri: str | None = None
    scopes: tuple[str, ...] = ()
    header: str = "authorization"
    audience: str | None = None
    # Whatever it is read from, a domain that no credential may go to is none.
    dataplane_domain: str | None = field(default=None, converter=data_plane_domain)


# States.


@frozen
class Asking:
    """Asking the place number ``place`` for its document."""

    seed: int
    url: str
    place: int = 0
    redirects: int = 0
    attempt: int = 0
    found: tuple[str, ...] = ()
    complaint: str = ""
    complaint_reason: str = ""
    speaks_flyte: bool = False


@frozen
class Pausing:
    """Giving a server that is not available a moment."""

    until: float
    asking: Asking


State = Asking | Pausing
STATES: Final = (Asking, Pausing)


@frozen
class Discovery(Flow[State, T], Generic[T]):
    """Asks ``places`` in turn: until one has the document, or all of them if ``all_places``, in
    which case only a 4xx leads from one that has none to the next (RFC 8414 §3.2).

    Ends with what ``gather`` makes of the documents; there may be none where Flyte itself says
    so, or where they are ``optional``.
    """

    places: tuple[Request, ...]
    read: Callable[[Object], Object | None] = field(repr=False)
    gather: Callable[[list[Object]], T] = field(repr=False)
    all_places: bool = False
    plain_host: str | None = None
    optional: bool = False

    def start(self, seed: int) -> State:
        """*seed* is 64 random bits: the jitter of the back-off."""
        return Asking(seed, self.places[0].url)

    def effect(self, state: State) -> Effect:
        match state:
            case Asking():
                return SendRequest(self._request(state))
            case Pausing(until):
                return WaitUntil(until)
            case _:
                assert_never(state)

    def advance(self, state: State, event: Event) -> State | Done[T]:
        match state, event:
            case Asking(), ResponseReceived(response, at=at):
                # RFC 8414 §3.2 knows one kind of answer: a 200 with a JSON object. Everything
                # else says either that the document is not here, or that we are not where we
                # think.
                if response.status == 200:
                    return self._document(state, response)
                if 300 <= response.status < 400:
                    return self._redirect(state, response)
                if response.status in (_ABSENT_AT_ISSUER if self.all_places else _ABSENT):
                    return self._absent(state, response)
                if response.transient:
                    return self._again(state, transient(event), at)
                # For what is not there, Cognito answers 400, and some CDNs 401 or 403.
                after = self._next if response.status >= 400 else self._instead
                return after(
                    state,
                    f"{host_of(state.url)} refuses to say how to log in (status "
                    f"{response.status}), so something else guards it; check the endpoint, "
                    "or whether a proxy in front needs a login of its own",
                    "status",
                )

            case Asking(), RequestFailed(at=at):
                return self._again(state, failure(self._request(state), event), at)

            case Pausing(until, asking), TimeReached(at):
                return state if at < until else asking

        raise UnexpectedEvent(state, event)

    def _request(self, state: Asking) -> Request:
        return evolve(self.places[state.place], url=state.url)

    def _document(self, state: Asking, response: Response) -> State | Done[T]:
        try:
            body = self.read(snake_case(parse_object(response)))
        except InvalidResponse as error:
            if error.reason not in {"not_json", "issuer", "error"}:
                raise
            return self._instead(state, f"{host_of(state.url)}: {error}", error.reason)
        if body is None:
            return self._next(evolve(state, speaks_flyte=True))
        return self._next(evolve(state, found=(*state.found, json.dumps(body))))

    def _redirect(self, state: Asking, response: Response) -> State | Done[T]:
        """At most three redirects, to the same origin only, and never for a POST."""
        location = response.header("location")
        try:
            target = urljoin(state.url, location) if location else ""
            parts = split_url(target)
        except ValueError:
            parts = None
        if (
            parts is not None
            and self.places[state.place].method == "GET"
            and state.redirects < REDIRECTS_MAX
            and is_secure(target, self.plain_host)
            and origin(target) == origin(state.url)
        ):
            return evolve(state, url=target, redirects=state.redirects + 1)
        where = quote(host_of(target)) if parts is not None else "nowhere"
        return self._instead(
            state,
            f"{host_of(state.url)} redirects to {where} instead of saying how to log in, "
            "probably a login page in between; check the endpoint and the proxy",
            "redirect",
        )

    def _absent(self, state: Asking, response: Response) -> State | Done[T]:
        """The document is not here. A JSON error says so in Flyte's own words; a web page says
        that this may not be a control plane at all.
        """
        try:
            speaks = "code" in parse_object(response)
        except InvalidResponse:
            speaks = False
        if is_html(response):
            return self._next(
                state,
                f"{host_of(state.url)} answers with a web page: the endpoint looks like a web "
                "console, or a login page stands in between; check the endpoint",
                "not_json",
            )
        if speaks or self.optional:
            return self._next(evolve(state, speaks_flyte=state.speaks_flyte or speaks))
        return self._next(
            state,
            f"{host_of(state.url)} does not answer like a Flyte control plane (status "
            f"{response.status}); check the endpoint, or try again if it is just starting",
            "not_found",
        )

    def _instead(self, state: Asking, complaint: str, reason: str) -> State | Done[T]:
        """Something came back in place of the document; an issuer that answers so is not asked in
        a weaker way. What it has said well already holds.
        """
        if self.all_places and not state.found:
            raise InvalidResponse(complaint, reason=reason)
        return self._next(state, complaint, reason)

    def _next(self, state: Asking, complaint: str = "", reason: str = "") -> State | Done[T]:
        if complaint and state.complaint_reason in {"", "not_found"}:  # the first that tells more
            state = evolve(state, complaint=complaint, complaint_reason=reason)
        place = state.place + 1
        if place < len(self.places) and (self.all_places or not state.found):
            url = self.places[place].url
            return evolve(state, place=place, url=url, redirects=0, attempt=0)
        if not state.found and state.complaint and not state.speaks_flyte:
            raise InvalidResponse(state.complaint, reason=state.complaint_reason)
        return Done(self.gather([Object(json.loads(text)) for text in state.found]))

    def _again(self, state: Asking, error: FlowError, at: float) -> State:
        if not isinstance(error, Unreachable):
            raise error
        asked = error.retry_after or 0.0
        if (
            error.reason == "tls"
            or state.attempt + 1 >= BACKOFF.attempts
            or asked > BACKOFF.retry_after_max
        ):
            raise error
        pause = max(asked, BACKOFF.pause(state.attempt, state.seed))
        return Pausing(at + pause, evolve(state, attempt=state.attempt + 1))


# What is asked of a control plane.


def authorization_server(endpoint: str) -> Discovery[AuthorizationServer | None]:
    """The authorization server of the control plane at *endpoint*; None if it has none."""
    plain = plain_host(endpoint)

    def read(body: Object) -> Object | None:
        if "error" in body:
            raise InvalidResponse(
                "an error came back instead of metadata; try again, and report it to whoever runs "
                "the control plane if it stays so",
                reason="error",
            )
        parse_metadata(body, plain)
        return body if member(body, "token_endpoint") else None

    return Discovery(
        (post_json(at(endpoint, OAUTH2_METADATA), {}), get(at(endpoint, WELL_KNOWN_OAUTH))),
        read,
        lambda found: parse_metadata(_set(found[0]), plain) if found else None,
        plain_host=plain,
    )


def _set(body: Object) -> Object:
    """The members of a message that are set. Some of Flyte's gateways write all of them, and an
    empty list is then one that nobody has filled (ProtoJSON).
    """
    return Object((name, value) for name, value in body.items() if value != [])


def public_client(endpoint: str) -> Discovery[PublicClient]:
    """The public client of the control plane at *endpoint*, with defaults for what it omits."""

    def read(body: Object) -> Object | None:
        parse_public_client(body)
        return body

    return Discovery(
        (post_json(at(endpoint, PUBLIC_CLIENT), {}), get(at(endpoint, FLYTE_CLIENT))),
        read,
        lambda found: parse_public_client(found[0]) if found else PublicClient(),
        plain_host=plain_host(endpoint),
        optional=True,
    )


def at(endpoint: str, path: str) -> str:
    """*path* below the endpoint, which may have a path of its own."""
    return endpoint.rstrip("/") + path


def parse_public_client(body: Object) -> PublicClient:
    """PublicClientAuthConfigResponse; an empty header key means ``authorization``."""
    return PublicClient(
        client_id=member(body, "client_id"),
        redirect_uri=member(body, "redirect_uri"),
        scopes=texts(body, "scopes"),
        header=_header(member(body, "authorization_metadata_key") or "authorization"),
        audience=member(body, "audience"),
        dataplane_domain=member(body, "dataplane_domain"),
    )


_OWN_HOST: Final = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:[0-9]*)?", re.IGNORECASE)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 §5.6.2
# Headers that mean something else to a server, to a proxy, or to whoever writes logs; gRPC takes
# the values of *-bin for something else.
_NOT_FOR_TOKENS: Final = re.compile(
    r"host|cookie2?|set-cookie2?|connection|te|trailer|transfer-encoding|upgrade|keep-alive|"
    r"http2-settings|origin|referer|user-agent|from|expect|date|via|forwarded|max-forwards|range|"
    r"if-.*|cache-control|pragma|priority|early-data|alt-.*|proxy-.*|content-.*|accept.*|sec-.*|"
    r"access-control-.*|www-authenticate|connect-.*|grpc-.*|.*-bin|x-forwarded-.*|x-real-ip|"
    r"x-http-method.*|x-method-.*|x-original-.*|x-rewrite-.*|x-request-id|x-correlation-id|"
    r"traceparent|tracestate|baggage"
)


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name) or _NOT_FOR_TOKENS.fullmatch(name.lower()):
        raise InvalidResponse(
            f"the control plane wants the token in header {quote(name, 40)!r}, which cannot "
            "carry one; report this to whoever runs it",
            reason="header_key",
        )
    return name.lower()


def check_redirect_uri(uri: str) -> str:
    """A redirect URI that a server may have us listen at: at one of the three names of this
    machine that RFC 8252 §7.3 and §8.3 know.
    """
    parts = split_url(uri)
    if (
        parts is None
        or parts.scheme != "http"
        or not _OWN_HOST.fullmatch(parts.netloc)
        or "#" in uri
    ):
        raise InvalidResponse(
            f"the control plane names {quote(uri, 80)!r} as redirect URI, which is not on this "
            "machine; report this to whoever runs it, or set redirect_uri",
            reason="redirect_uri",
        )
    return uri


# What is asked of an issuer.


def issuer_metadata(issuer: str, plain_host: str | None = None) -> Discovery[AuthorizationServer]:
    """The metadata of an authorization server that the user names (RFC 8414 §3, OpenID Connect
    Discovery 1.0 §4): both documents, merged, the first one leading.
    """
    if not is_secure(issuer, plain_host) or "?" in issuer:
        raise ConfigError(
            f"issuer {quote(issuer, 80)!r} must be an https URL without query or fragment; "
            "correct admin.issuer",
            reason="issuer",
        )

    def read(body: Object) -> Object:
        named = member(body, "issuer")
        if named != issuer:  # RFC 8414 §3.3: identical, code point by code point
            raise InvalidResponse(
                f"the metadata is for issuer {quote(named or '', 80)!r}, asked was {issuer!r}; "
                "write the issuer exactly as its server does",
                reason="issuer",
            )
        parse_metadata(body, plain_host)
        return body

    def says_something(name: str, value: object) -> bool:
        return bool(value) or (name == "code_challenge_methods_supported" and value is not None)

    def gather(found: list[Object]) -> AuthorizationServer:
        if not found:
            raise InvalidResponse(
                f"{host_of(issuer)} publishes no authorization server metadata; check the issuer, "
                "or set endpoints",
                reason="not_found",
            )
        merged = Object()
        for document in reversed(found):
            merged.update({k: v for k, v in document.items() if says_something(k, v)})
        return parse_metadata(merged, plain_host)

    path = urlsplit(issuer).path.rstrip("/")
    return Discovery(
        (
            get(same_path(issuer, WELL_KNOWN_OAUTH + path)),
            get(same_path(issuer, path + WELL_KNOWN_OPENID)),
        ),
        read,
        gather,
        all_places=True,
        plain_host=plain_host,
        optional=True,  # gather says it better
    )


def agrees(advertised: AuthorizationServer, own: AuthorizationServer) -> bool:
    """Whether every endpoint that a control plane advertises is also its issuer's own."""
    return all(
        getattr(advertised, name) in {None, getattr(own, name)}
        for name in ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint")
    )


def snake_case(body: Object) -> Object:
    """*body* with camelCase member names, protobuf's JSON spelling, in the spelling of the RFCs."""
    renamed = Object((_snake_case(name), value) for name, value in body.items())
    renamed.repeated = repeated(map(_snake_case, body)) | set(map(_snake_case, body.repeated))
    return renamed


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
