"""
Where a person decides: the authorization endpoint and the page where devices are activated.

Nothing is kept between two pages. A page's form posts to the page's own URL, so that the request
is checked again each time; who the browser is stands in a signed cookie, and each form carries a
signed token that only fits this browser, this user and this request (RFC 9700 §4.7).
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from attrs import frozen

from .._sansio.http import Headers, Request, Response, add_query
from . import pages
from .authorization import AuthorizationServer
from .identity import DEFAULT_USER
from .issued import DeviceGrant
from .messages import Form, Refusal, Target, cookie, parse_form, parse_parameters, redirect
from .requests import AuthorizationRequest, parse_destination, parse_request
from .seed import Seed, same
from .settings import Settings
from .signing import base64url

_LOGIN_TTL: Final = 8 * 3600
_FORM_TTL: Final = 1800
_USER_MAX: Final = 64


@frozen
class Visitor:
    """A browser: its own random name, and who logged in with it, if anybody did."""

    name: str
    username: str = ""


class Browser:
    """The pages of the authorization server."""

    def __init__(self, settings: Settings, seed: Seed, server: AuthorizationServer) -> None:
        self._settings = settings
        self._seed = seed
        self._server = server
        base = urlsplit(settings.base_url)
        # Cookies ignore ports, so two control planes on one machine need two names.
        self._cookie = f"flyteauth_devserver_{base.port or base.scheme}"
        self._cookie_flags = "; Path=/; HttpOnly; SameSite=Lax" + (
            "; Secure" if base.scheme == "https" else ""
        )

    # The authorization endpoint, RFC 6749 §3.1.

    def authorize(self, request: Request, target: Target, at: float) -> Response:
        try:
            form = parse_parameters(target.query)
            client, redirect_uri = parse_destination(form, self._server.clients)
        except Refusal as refusal:
            return self._error(refusal)
        after_post = request.method == "POST"
        # Written anew, for a browser may spell the same query in another way when it posts.
        action = f"{target.path}?{urlencode(form.values)}"
        try:
            wanted = parse_request(form, client, redirect_uri)
            if self._settings.approve == "auto":
                return self._allow(wanted, DEFAULT_USER, at, after_post=after_post)
            if after_post:
                return self._posted_to_authorize(request, action, wanted, at)
            return self._asked_to_authorize(request, action, wanted, at)
        except Refusal as refusal:
            state = None if "state" in form.repeated else form.get("state")
            return self._redirect_error(redirect_uri, state, refusal, after_post=after_post)

    def _asked_to_authorize(
        self, request: Request, action: str, wanted: AuthorizationRequest, at: float
    ) -> Response:
        """OpenID Connect Core §3.1.2.1 says what each prompt means."""
        visitor = self._visitor(request, at)
        known = visitor is not None and bool(visitor.username)
        if "none" in wanted.prompt:
            if wanted.prompt != {"none"}:
                raise Refusal("invalid_request", "prompt=none does not go with others")
            error = "consent_required" if known else "login_required"
            raise Refusal(error, "a person has to decide, and prompt=none forbids to ask")
        hint = _username(wanted.login_hint or "")
        another = visitor is not None and hint not in {None, visitor.username}
        if visitor is None or not known or another or wanted.prompt & {"login", "select_account"}:
            return self._login_page(visitor, action, at, hint=hint)
        return self._consent_page(visitor, action, wanted, at)

    def _posted_to_authorize(
        self, request: Request, action: str, wanted: AuthorizationRequest, at: float
    ) -> Response:
        match self._posted(request, action, {"login"}, at):
            case Response() as refused:
                return refused
            case visitor, "login", form:
                return self._logged_in(
                    visitor,
                    form,
                    action,
                    at,
                    lambda new: self._consent_page(new, action, wanted, at),
                )
            case visitor, "allow", _:
                return self._allow(wanted, visitor.username, at, after_post=True)
            case visitor, "switch", _:
                return self._login_page(visitor, action, at)
            case _:
                raise Refusal("access_denied", "the user denied the access")

    def _allow(
        self, wanted: AuthorizationRequest, username: str, at: float, *, after_post: bool
    ) -> Response:
        """The authorization response (RFC 6749 §4.1.2)."""
        if self._settings.fault("deny"):
            raise Refusal("access_denied", "the user denied the access")
        code = self._server.issue_code(wanted, username, at)
        answer = [("code", code), *self._common(wanted.state)]
        return redirect(add_query(wanted.redirect_uri, answer), after_post=after_post)

    def _redirect_error(
        self, redirect_uri: str, state: str | None, refusal: Refusal, *, after_post: bool
    ) -> Response:
        """The error response (RFC 6749 §4.1.2.1)."""
        answer = [
            ("error", refusal.error),
            ("error_description", self._server.description(refusal)),
            *self._common(state),
        ]
        return redirect(add_query(redirect_uri, answer), after_post=after_post)

    def _common(self, state: str | None) -> list[tuple[str, str]]:
        """What every response carries: the state as it came, and RFC 9207 §2's issuer."""
        if self._settings.fault("wrong-state"):
            state = "another"
        issuer = self._settings.issuer
        if self._settings.fault("wrong-iss"):
            issuer = "https://attacker.example"
        answer = [] if state is None else [("state", state)]
        return answer if self._settings.fault("missing-iss") else [*answer, ("iss", issuer)]

    # The activation page, RFC 8628 §3.3.

    def activate(self, request: Request, target: Target, at: float) -> Response:
        try:
            query = parse_parameters(target.query)
            query.once()
            if request.method == "POST":
                return self._posted_to_activate(request, query, at)
        except Refusal as refusal:
            return self._error(refusal)
        visitor = self._visitor(request, at)
        user_code = query.get("user_code")
        if user_code is None:
            return self._activation_page(visitor, at)
        grant = self._server.device_grant(user_code, at)
        if grant is None or not grant.pending:
            return self._activation_page(visitor, at, user_code=user_code, grant=grant)
        if visitor is None or not visitor.username:
            return self._login_page(visitor, _device_action(grant), at)
        return self._device_page(visitor, grant, at)

    def _posted_to_activate(self, request: Request, query: Form, at: float) -> Response:
        in_query = query.get("user_code")
        grant = None if in_query is None else self._server.device_grant(in_query, at)
        action = "/activate" if grant is None else _device_action(grant)
        match self._posted(request, action, {"login", "continue"}, at):
            case Response() as refused:
                return refused
            case visitor, "continue", form:
                typed = form.get("user_code") or ""
                found = self._server.device_grant(typed, at)
                if found is None or not found.pending:
                    return self._activation_page(visitor, at, user_code=typed, grant=found)
                return redirect(
                    f"{self._settings.base_url}{_device_action(found)}", after_post=True
                )
            case visitor, _, _ if grant is None or not grant.pending:
                return self._activation_page(visitor, at, user_code=in_query or "", grant=grant)
            case visitor, "login", form:
                device = grant
                return self._logged_in(
                    visitor, form, action, at, lambda new: self._device_page(new, device, at)
                )
            case visitor, "switch", _:
                return self._login_page(visitor, action, at)
            case visitor, decision, _:
                self._server.decide(grant, visitor.username if decision == "allow" else None)
                return _device_result(grant, visitor)

    def _device_page(self, visitor: Visitor, grant: DeviceGrant, at: float) -> Response:
        action = _device_action(grant)
        page = pages.consent(
            action=action,
            hidden=self._hidden(visitor, action, at),
            username=visitor.username,
            client_id=grant.client_id,
            scopes=grant.scopes,
            user_code=grant.user_code,
        )
        return self._page(page, visitor, at)

    def _activation_page(
        self,
        visitor: Visitor | None,
        at: float,
        *,
        user_code: str = "",
        grant: DeviceGrant | None = None,
    ) -> Response:
        visitor = visitor or self._stranger()
        message = ""
        if grant is not None:
            message = "This code has been used already. Ask your device for a new one."
        elif user_code:
            message = "This code is unknown or its time is over. Check what your device shows."
        page = pages.activation(
            action="/activate",
            hidden=self._hidden(visitor, "/activate", at),
            user_code=user_code[:32],
            message=message,
        )
        return self._page(page, visitor, at, status=400 if message else 200)

    # Login.

    def _login_page(
        self,
        visitor: Visitor | None,
        action: str,
        at: float,
        *,
        hint: str | None = None,
        message: str = "",
    ) -> Response:
        visitor = visitor or self._stranger()
        page = pages.login(
            action=action,
            hidden=self._hidden(visitor, action, at),
            username=_username(hint or "") or DEFAULT_USER,
            message=message,
        )
        return self._page(page, visitor, at, status=400 if message else 200)

    def _logged_in(
        self,
        visitor: Visitor,
        form: Form,
        action: str,
        at: float,
        go_on: Callable[[Visitor], Response],
    ) -> Response:
        username = _username(form.get("username") or "")
        if username is None:
            return self._login_page(
                visitor, action, at, message="Type a name of at most 64 visible characters."
            )
        # A new name, so that nobody who knew the old one takes part (session fixation).
        return go_on(Visitor(self._seed.next("visitor"), username))

    # Forms and cookies.

    def _posted(
        self, request: Request, action: str, open_to_all: set[str], at: float
    ) -> tuple[Visitor, str, Form] | Response:
        """Who posts which decision; or the page that tells why it does not count."""
        try:
            form = parse_form(request)
        except Refusal as refusal:
            return self._error(refusal)
        visitor = self._visitor(request, at)
        if visitor is None:
            text = "Your browser sent no cookie back. Allow cookies for this page and start again."
            return pages.page_response(400, pages.error("Not logged in", text))
        token = form.get("form_token") or ""
        issued, _, _ = token.partition(".")
        fits = same(token, self._form_token(visitor, action, issued))
        if not fits or not int(issued) <= at < int(issued) + _FORM_TTL:
            text = "This form is not from here, or it is too old. Go back and start again."
            return pages.page_response(403, pages.error("Form expired", text))
        decision = form.get("decision")
        # A form that is sent with the Enter key or by a program may name no button.
        if decision is None and form.get("username"):
            decision = "login"
        if decision is None and form.get("user_code"):
            decision = "continue"
        offered = {*open_to_all, *({"allow", "deny", "switch"} if visitor.username else ())}
        if decision is None or decision not in offered:
            text = "The form does not say what you decided. Go back and start again."
            return pages.page_response(400, pages.error("No decision", text))
        return visitor, decision, form

    def _form_token(self, visitor: Visitor, action: str, issued: str) -> str:
        signature = self._seed.mac("form", visitor.name, visitor.username, action, issued)
        return f"{issued}.{signature}"

    def _hidden(self, visitor: Visitor, action: str, at: float) -> dict[str, str]:
        return {"form_token": self._form_token(visitor, action, str(int(at)))}

    def _visitor(self, request: Request, at: float) -> Visitor | None:
        """The browser whose cookie came with the request."""
        value = cookie(request, self._cookie) or ""
        name, _, rest = value.partition(".")
        encoded, _, rest = rest.partition(".")
        issued, _, signature = rest.partition(".")
        if not same(signature, self._seed.mac("visitor", name, encoded, issued)):
            return None
        if not int(issued) <= at < int(issued) + _LOGIN_TTL:
            return None
        return Visitor(name, urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())

    def _stranger(self) -> Visitor:
        return Visitor(self._seed.next("visitor"))

    def _set_cookie(self, visitor: Visitor, at: float) -> Headers:
        encoded, issued = base64url(visitor.username.encode()), str(int(at))
        signature = self._seed.mac("visitor", visitor.name, encoded, issued)
        value = f"{visitor.name}.{encoded}.{issued}.{signature}"
        flags = f"{self._cookie_flags}; Max-Age={_LOGIN_TTL}"
        return (("set-cookie", f"{self._cookie}={value}{flags}"),)

    def _consent_page(
        self, visitor: Visitor, action: str, wanted: AuthorizationRequest, at: float
    ) -> Response:
        page = pages.consent(
            action=action,
            hidden=self._hidden(visitor, action, at),
            username=visitor.username,
            client_id=wanted.client.client_id,
            scopes=wanted.scopes,
            destination=wanted.redirect_uri,
        )
        return self._page(page, visitor, at)

    def _page(self, page: str, visitor: Visitor, at: float, *, status: int = 200) -> Response:
        return pages.page_response(status, page, self._set_cookie(visitor, at))

    def _error(self, refusal: Refusal) -> Response:
        text = (
            f"The program that sent you here made a mistake: {refusal.description}. "
            "Close this page, and start again from there."
        )
        page = pages.error("This request cannot be answered", text, refusal.error)
        return pages.page_response(400, page)


def _device_result(grant: DeviceGrant, visitor: Visitor) -> Response:
    if grant.denied:
        page = pages.result(
            "Access denied",
            "The device that shows this code gets no access. You can close this page.",
            grant.user_code,
            ok=False,
        )
    else:
        page = pages.result(
            "Access allowed",
            f"The device that shows this code may now act for {visitor.username}. "
            "Go back to it; you can close this page.",
            grant.user_code,
            ok=True,
        )
    return pages.page_response(200, page)


def _device_action(grant: DeviceGrant) -> str:
    return f"/activate?user_code={quote(grant.user_code)}"


def _username(text: str) -> str | None:
    """A name that may be shown, or None."""
    name = " ".join(text.split())
    return name if 0 < len(name) <= _USER_MAX and name.isprintable() else None
