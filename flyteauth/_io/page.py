"""
What the browser shows when it comes back: one small page that tells the truth.

A page is a value; ``render`` makes the response. It loads nothing, reflects nothing from the query
(an authorization server's own words go to the terminal), and leaves the address that holds the
code (RFC 9700 §4.2.4, §4.3.1). Only the one script and the one style sheet below may run: the
policy names their hashes.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from typing import Final

from attrs import frozen

from .._sansio.errors import Error, OAuth2Error, quote
from .._sansio.http import Headers
from .._sansio.redirect import Reply

Rendered = tuple[int, Headers, bytes]


@frozen
class Page:
    """``html`` is the caller's own page, sent as it is; ``status`` 0 means what ``ok`` says."""

    title: str
    message: str
    ok: bool
    status: int = 0
    headers: Headers = ()
    html: bytes | None = None


def success(endpoint: str, subject: str | None = None, html: bytes | None = None) -> Page:
    """The code is redeemed: *subject*, if known, is signed in to *endpoint*."""
    who = f" as {quote(subject)}" if subject else ""
    message = f"Signed in{who} to {quote(endpoint)}; you can close this tab."
    return Page("Signed in", message, ok=True, html=html)


def failure(error: BaseException) -> Page:
    """The login has failed with *error*, whose message ends with what to do."""
    if isinstance(error, OAuth2Error):  # without the description, which came by the query
        error = OAuth2Error(error.error, hint=error.hint)
    if not isinstance(error, Exception):  # CancelledError, Cancelled, KeyboardInterrupt
        return CANCELLED
    if not isinstance(error, Error) or not str(error):
        return BROKEN
    if isinstance(error, OAuth2Error) and error.error == "access_denied":
        return DENIED
    reason = quote(str(error))
    return Page("Sign-in failed", f"{reason[:1].upper()}{reason[1:]}", ok=False)


CANCELLED: Final = Page(
    "Sign-in not completed",
    "The login was cancelled before it was complete. Go back to the program that started it, "
    "and log in again.",
    ok=False,
)
BROKEN: Final = Page(
    "Sign-in failed",
    "The login ended unexpectedly. Go back to the program that started it to see why.",
    ok=False,
)
DENIED: Final = Page(
    "Access not allowed",
    "The request was declined, by you or by a rule of the server (access_denied), so you are not "
    "signed in. If that was a mistake, go back to the program, log in again and allow the access.",
    ok=False,
)
COMPLETED: Final = Page(
    "Already completed", "This login is already completed; you can close this tab.", ok=True
)
RECEIVED: Final = Page(
    "Already received",
    "Another tab is completing this login; you can close this one.",
    ok=True,
)

_REFUSALS: Final = {
    "state": "This answers another login. Use the newest link of the program that you log in to.",
    "path": "Nothing is here.",
    "host": "This address is not for that name.",
    "method": "This address takes GET only.",
    "too_long": "This address is too long.",
}


def refusal(reply: Reply) -> Page:
    """A request that is not the one a login waits for."""
    message = _REFUSALS.get(reply.reason, "This request cannot be used.")
    return Page("Not this one", message, ok=False, status=reply.status, headers=reply.headers)


_STYLE: Final = """
:root{color-scheme:light dark;--ground:#f3f4f7;--card:#fff;--text:#1c1c22;--soft:#5d5d6b;\
--edge:#dfe0e6;--ok:#08703c;--no:#b3201f}
@media(prefers-color-scheme:dark){:root{--ground:#131316;--card:#1e1e23;--text:#ececf1;\
--soft:#a2a2b0;--edge:#34343c;--ok:#5fd497;--no:#ff8f88}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;padding:1rem;display:grid;place-items:center;\
font:1.125rem/1.55 system-ui,sans-serif;background:var(--ground);color:var(--text)}
main{width:100%;max-width:34rem;padding:2rem 2.25rem;overflow-wrap:anywhere;\
background:var(--card);border:1px solid var(--edge);border-radius:.75rem}
h1{display:flex;align-items:center;gap:.75rem;font-size:1.5rem;line-height:1.25;margin:0 0 1rem}
h1:before{flex:none;width:2.5rem;height:2.5rem;border:.15rem solid;border-radius:50%;\
display:grid;place-items:center;font-size:1.375rem;line-height:1}
.ok{color:var(--ok)}
.ok:before{content:"\\2713";content:"\\2713"/""}
.no{color:var(--no)}
.no:before{content:"!";content:"!"/""}
p{margin:0}
small{display:block;margin-top:1.5rem;color:var(--soft)}
@media(max-width:30rem){main{padding:1.5rem 1.25rem}h1{font-size:1.3rem}}
"""
_SCRIPT: Final = 'history.replaceState(null,"",location.pathname)'

_HTML: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1 class="{mark}">{title}</h1>
<p role="status">{message}</p>
<small>flyteauth</small>
</main>
<script>{script}</script>
</body>
</html>
"""


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


_CLOSED: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY: Final = f"{_CLOSED}; img-src data:; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}"
_CUSTOM_POLICY: Final = f"{_CLOSED}; img-src data:; style-src 'unsafe-inline'"


def render(page: Page) -> Rendered:
    """Status, headers and body of *page*."""
    if page.html is None:
        policy = _POLICY
        body = _HTML.format(
            title=escape(page.title),
            message=escape(page.message),
            mark="ok" if page.ok else "no",
            style=_STYLE,
            script=_SCRIPT,
        ).encode("utf-8", "replace")
    else:
        policy, body = _CUSTOM_POLICY, page.html
    headers = {
        **dict(page.headers),
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "content-security-policy": policy,
    }
    return page.status or (200 if page.ok else 400), tuple(headers.items()), body
