"""
The pages that a person meets: login, consent, device activation, and how it ended.

Pure functions from values to HTML. No scripts, nothing from outside, every dynamic text escaped
with its quotes. Each form posts to ``action``, carries what it needs in hidden fields, and names
its choices in buttons called ``decision``, so a program can follow the pages like a browser.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from .._sansio.http import Headers, Response
from .messages import NO_STORE

_STYLE: Final = """
:root { color-scheme: light dark; --page: #f4f2f8; --card: #fff; --text: #1d1a24;
  --soft: #5e5870; --line: #d9d4e3; --accent: #6d28d9; --on-accent: #fff; --good: #146c43;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15131b; --card: #201d29; --text: #efedf4;
  --soft: #aca5bd; --line: #3b364a; --accent: #b794f6; --on-accent: #1b1426; --good: #6fd6a0;
  --bad: #ff8f87; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; min-height: 100vh; display: flex; align-items: center; justify-content: center;
  padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { width: 100%; max-width: 27rem; padding: clamp(1.25rem, 6vw, 2rem); background: var(--card);
  border: 1px solid var(--line); border-radius: .75rem; overflow-wrap: anywhere; }
main > :last-child, form > :last-child { margin-bottom: 0; }
h1 { margin: 0 0 .75rem; font-size: 1.4rem; line-height: 1.25; }
p, ul, form { margin: 0 0 1rem; }
ul { padding-left: 1.25rem; }
a { color: var(--accent); }
.soft, .where { color: var(--soft); font-size: .875rem; }
.where { margin-bottom: .25rem; }
.good { color: var(--good); }
.bad { color: var(--bad); }
p.bad { font-weight: 600; }
.code { display: block; margin: 0 0 1rem; padding: .5rem; text-align: center; letter-spacing: .1em;
  font: 600 1.75rem/1.3 ui-monospace, monospace; border: 1px dashed var(--soft);
  border-radius: .5rem; }
label { display: block; margin-bottom: .25rem; font-weight: 600; }
input[type=text] { width: 100%; margin-bottom: 1rem; padding: .625rem .75rem; font: inherit;
  color: inherit; background: transparent; border: 1px solid var(--soft); border-radius: .5rem; }
input.typed { text-align: center; text-transform: uppercase; letter-spacing: .1em;
  font: 600 1.5rem/1.3 ui-monospace, monospace; }
input[aria-invalid] { border-color: var(--bad); }
::placeholder { color: var(--soft); opacity: 1; font-weight: 400; }
.buttons { display: flex; flex-wrap: wrap; gap: .75rem; margin-bottom: 1rem; }
button { flex: 1 1 8rem; padding: .625rem 1rem; font: inherit; font-weight: 600; cursor: pointer;
  color: var(--text); background: transparent; border: 1px solid var(--soft);
  border-radius: .5rem; }
button.first { color: var(--on-accent); background: var(--accent); border-color: var(--accent); }
button.link { flex: none; padding: .25rem 0; border: 0; font-weight: 400;
  text-decoration: underline; color: var(--soft); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""

_STYLE_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# There is no form-action on purpose. Browsers apply it to the redirect that follows a form as
# well, here the one to the client's loopback redirect_uri, and no host-source can name [::1].
# The forms themselves are constant and go to where their page came from.
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HEADERS: Final[Headers] = (
    ("content-type", "text/html; charset=utf-8"),
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    *NO_STORE,
)

Hidden = Mapping[str, str]

_WHERE: Final = "flyteauth devserver, for development"

_MEANING: Final = {
    "all": "use the control plane in your name",
    "offline": "stay logged in without asking again",
    "offline_access": "stay logged in without asking again",
    "openid": "know who you are",
    "profile": "see your name",
    "email": "see your email address",
}


def page_response(status: int, page: str, headers: Headers = ()) -> Response:
    return Response(status, (*HEADERS, *headers), page.encode())


def login(*, action: str, hidden: Hidden, username: str, message: str = "") -> str:
    """Asks who is there."""
    return _page(
        "Log in",
        _message(message),
        "<p>This control plane accepts any name and asks for no password.</p>",
        _form(
            action,
            hidden,
            '<label for="username">User name</label>'
            '<input type="text" id="username" name="username" required maxlength="64" '
            'autocomplete="username" autocapitalize="none" spellcheck="false" autofocus '
            f'value="{escape(username)}"{_invalid(message)}>',
            _buttons(("login", "Log in")),
        ),
    )


def consent(
    *,
    action: str,
    hidden: Hidden,
    username: str,
    client_id: str,
    scopes: Iterable[str],
    user_code: str = "",
    destination: str = "",
) -> str:
    """Asks whether *client_id* may act for the user (RFC 6749 §3.1, RFC 8628 §3.3)."""
    question = f"Allow {client_id}?"
    who = (
        f"<p><strong>{escape(client_id)}</strong> wants to act for "
        f"<strong>{escape(username)}</strong> with these scopes:</p>"
    )
    listed = "".join(f"<li>{_scope(scope)}</li>" for scope in scopes)
    # RFC 8628 §5.4: a stranger may have sent the link, so the user compares the code.
    check = (
        "<p>Go on only if your device shows exactly this code, and you started this login:</p>"
        f'<strong class="code">{escape(user_code)}</strong>'
        if user_code
        else ""
    )
    where = f'<p class="soft">The answer goes to {escape(destination)}</p>' if destination else ""
    return _page(
        question,
        who,
        f"<ul>{listed}</ul>",
        check,
        _form(
            action,
            hidden,
            _buttons(("allow", "Allow"), ("deny", "Deny")),
            '<p class="soft">Not you? <button type="submit" class="link" name="decision" '
            'value="switch">Log in with another name</button></p>',
        ),
        where,
    )


def activation(*, action: str, hidden: Hidden, user_code: str = "", message: str = "") -> str:
    """Asks for the code that a device shows (RFC 8628 §3.3)."""
    return _page(
        "Connect a device",
        _message(message),
        "<p>Type the code that your device or terminal shows.</p>",
        _form(
            action,
            hidden,
            '<label for="user_code">Code</label>'
            '<input type="text" class="typed" id="user_code" name="user_code" required '
            'maxlength="32" placeholder="XXXX-XXXX" autocomplete="off" spellcheck="false" '
            'autocapitalize="characters" autofocus '
            f'value="{escape(user_code)}"{_invalid(message)}>',
            _buttons(("continue", "Continue")),
        ),
    )


def result(title: str, text: str, user_code: str, *, ok: bool) -> str:
    """Tells how it ended, and for which device."""
    return _page(
        title,
        f'<p role="status">{escape(text)}</p>',
        f'<strong class="code">{escape(user_code)}</strong>',
        mark="good" if ok else "bad",
    )


def error(title: str, text: str, code: str = "") -> str:
    """Tells what is wrong with a request, and to whom: never a redirect (RFC 6749 §4.1.2.1)."""
    name = f'<p class="soft">Error code: {escape(code)}</p>' if code else ""
    return _page(title, f'<p role="alert">{escape(text)}</p>', name, mark="bad")


def home(endpoint: str) -> str:
    """What a browser sees at the root."""
    return _page(
        "flyteauth control plane",
        "<p>This is the embedded control plane of flyteauth.</p>",
        f"<p>Its endpoint is <strong>{escape(endpoint)}</strong></p>",
        '<p><a href="/activate">Connect a device</a></p>',
    )


def no_console(endpoint: str) -> str:
    """Where the address of a run, a task or an app leads to."""
    return _page(
        "There is no console here",
        "<p>This control plane is for development. It keeps a record of tasks, runs and apps, and "
        "carries nothing out, so a run stays queued.</p>",
        f"<p>To see it: <strong>flyte get run</strong>, with {escape(endpoint)}.</p>",
    )


# What stands in front of a control plane and answers in its place. For faults.


def console() -> Response:
    """The page of a web console, which answers every path."""
    page = '<!doctype html><html lang="en"><title>Console</title><div id="root"></div></html>'
    return Response(200, (("content-type", "text/html; charset=utf-8"),), page.encode())


def proxy(status: int, headers: Headers = ()) -> Response:
    """The page of a proxy whose upstream is away."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
    return Response(status, (("content-type", "text/html"), *headers), page.encode())


def _page(title: str, *parts: str, mark: str = "") -> str:
    heading = f'<h1 class="{mark}">' if mark else "<h1>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><main><p class="where">{_WHERE}</p>'
        f"{heading}{escape(title)}</h1>{''.join(parts)}</main></body></html>"
    )


def _message(text: str) -> str:
    return f'<p class="bad" id="message" role="alert">{escape(text)}</p>' if text else ""


def _invalid(message: str) -> str:
    return ' aria-invalid="true" aria-describedby="message"' if message else ""


def _scope(scope: str) -> str:
    """A scope, and for those who do not know its name what it means."""
    meaning = _MEANING.get(scope)
    return escape(scope) + (f' <span class="soft">{meaning}</span>' if meaning else "")


def _form(action: str, hidden: Hidden, *parts: str) -> str:
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in hidden.items()
    )
    return f'<form method="post" action="{escape(action)}">{fields}{"".join(parts)}</form>'


def _buttons(*choices: tuple[str, str]) -> str:
    first = ' class="first"'
    buttons = "".join(
        f'<button type="submit" name="decision" value="{value}"{"" if index else first}>'
        f"{label}</button>"
        for index, (value, label) in enumerate(choices)
    )
    return f'<div class="buttons">{buttons}</div>'
