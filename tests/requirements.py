"""
What an OAuth 2 client has to do, as 219 requirements, and which of them have a test.

A test names what it proves: ``@pytest.mark.req("DEV-07")``. ``python -m tests.requirements``
prints which requirements have a test and which do not yet.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

SECTIONS: Final = {
    "META": "endpoints, metadata, mix-up, protected resources",
    "AZR": "authorization request",
    "CBK": "loopback callback",
    "COD": "code exchange",
    "TOK": "token response",
    "IDT": "ID token",
    "CLK": "lifetimes and clocks",
    "REF": "refresh",
    "DEV": "device authorization grant",
    "CCG": "client credentials and client authentication",
    "AST": "assertions and workload identity",
    "TXR": "token exchange and resource indicators",
    "PAR": "pushed authorization requests",
    "DPO": "DPoP",
    "REV": "revocation and logout",
    "BRR": "presenting the token",
    "SEC": "secrets at rest and in memory",
    "ERR": "error texts and terminal output",
    "RND": "randomness",
    "HTM": "success and failure pages",
    "NET": "HTTP behaviour",
}

REQUIREMENTS: Final = dict(
    line.split(" ", 1)
    for line in """\
META-01 an issuer is an https URL with a host and nothing after the path
META-02 every endpoint URL is https, without fragment or userinfo
META-03 well-known URLs: RFC 8414 inserts, OpenID appends
META-04 metadata names exactly the issuer that was asked for
META-05 TLS is verified; turning that off is explicit and warns
META-06 metadata is read up to 1 MiB and 10 s
META-07 metadata is a 200 with a JSON object; only a 404 leads to the next form
META-08 at most three redirects for metadata, same origin only
META-09 unknown members are ignored, known ones of a wrong type are not
META-10 one login sends its code to the token endpoint that it began with
META-11 a control plane's endpoints can be compared with its issuer's own
META-12 no two servers share one issuer
META-13 S256 must not be ruled out by the metadata
META-14 what the server lacks is named before a flow starts
META-15 a redirect URI from a server stays on loopback
META-16 the token header's name is a harmless HTTP token; empty is authorization
META-17 protected-resource metadata is about the resource that was asked
META-18 a server learnt at run time is not trusted before somebody says so
META-19 dynamic registration is opt-in, bound to its issuer, and expires
AZR-01 response_type is code, always
AZR-02 the authorization endpoint keeps its own query
AZR-03 each parameter once; extras never shadow the protocol's
AZR-04 PKCE with S256, unpadded base64url
AZR-05 no second try with plain or without PKCE
AZR-06 state, verifier and nonce are new for every request
AZR-07 state is always sent
AZR-08 nonce is sent with openid
AZR-09 one redirect_uri, byte for byte, in listener and both requests
AZR-10 a loopback address literal, IPv4 first, unless localhost is registered
AZR-11 localhost is bound on both families, by address
AZR-12 port 0 is bound and read back; a busy fixed port is an error
AZR-13 nobody else can bind the port of a live listener
AZR-14 listening before the browser opens, closed whatever happens
AZR-15 only https, or http on loopback, is opened in a browser, without a shell
AZR-16 without a browser the URL is printed, and nothing blocks
AZR-17 scopes go out as configured, or not at all
CBK-01 the listener is on loopback addresses only
CBK-02 only the exact redirect path counts
CBK-03 only GET counts
CBK-04 only requests for our own authority count
CBK-05 prefetches and sub-resource loads settle nothing
CBK-06 the query is form-decoded UTF-8
CBK-07 a repeated parameter is refused
CBK-08 unknown parameters are ignored, empty ones absent
CBK-09 state is compared first; a stranger's is never acted on
CBK-10 an error with our state ends the login at once
CBK-11 code with error, or a token in the query, is refused
CBK-12 a present iss is our issuer, on errors too
CBK-13 an advertised iss must be there
CBK-14 one redirect URI per authorization server
CBK-15 the first valid callback settles, later ones get a page
CBK-16 waiting has an end and can be cancelled
CBK-17 idle connections do not starve the real one
CBK-18 long targets are read, any bytes are survived
CBK-19 the whole request is read, the whole answer written
CBK-20 the query never says where to go next
CBK-21 a pasted redirect is checked like a received one
COD-01 the code travels in a form body to the token endpoint, never in a URL
COD-02 grant_type, code, redirect_uri, code_verifier, and client_id
COD-03 nothing else of the authorization request is sent
COD-04 a code is sent at most once
COD-05 an error response ends the login, no loop
COD-06 code, verifier, state and nonce are gone afterwards
TOK-01 tokens come with status 200 only
TOK-02 a JSON object of bounded size, whatever its Content-Type
TOK-03 a known member appears once
TOK-04 access_token is a non-empty b64token
TOK-05 token_type is there and is bearer, in any case
TOK-06 expires_in is read leniently; nonsense means unknown
TOK-07 unknown members and any token size are fine
TOK-08 an absent scope is the one asked for
TOK-09 a changed scope is recorded, not an error
TOK-10 an empty refresh_token is none, a non-text is an error
TOK-11 an error in a 200 is an error
TOK-12 the access token is opaque
TOK-13 without a valid error the status decides
IDT-01 iss is our issuer
IDT-02 aud is our client, azp too
IDT-03 the signature is skipped only over verified TLS
IDT-04 only asymmetric algorithms
IDT-05 the nonce is ours
IDT-06 not expired, not from the future
IDT-07 at_hash fits
IDT-08 a refreshed ID token is about the same person
IDT-09 sub is sane
CLK-01 lifetimes count from when the request was sent
CLK-02 either clock can expire a token; clock steps cost one refresh at most
CLK-03 absolute times are stored, tokens from the future are spent
CLK-04 refreshed a jittered leeway early, and used at least once
CLK-05 expiry is a hint, an early 401 is a refresh
CLK-06 a valid token stays in use when an early refresh fails
CLK-07 every wait can be cancelled and looks at the clock again
CLK-08 both clocks are inputs of the machines
REF-01 grant_type, refresh_token, client; scope only narrows
REF-02 a new refresh token replaces the old
REF-03 no new refresh token keeps the old
REF-04 the rotated token is stored before the new access token is used
REF-05 one refresh in one process
REF-06 one refresh across processes
REF-07 invalid_grant: read the store once more, then the login is over
REF-08 network failures never touch a refresh token
REF-09 5xx, 429 and 408 are transient: keep, wait, no login
REF-10 only invalid_grant costs the refresh token
REF-11 a lost reply is retried at most once
REF-12 no surprise login
REF-13 a cancelled waiter does not cancel the refresh
REF-14 nothing is replaced before the whole response is valid
REF-15 tokens survive in memory when storing fails
REF-16 a refresh token goes only where it came from
DEV-01 client_id, and scope only if there is one
DEV-02 device_code, user_code, verification_uri and expires_in are required
DEV-03 interval defaults to 5 s and is never undercut
DEV-04 the interval passes between polls, and before the first
DEV-05 pending keeps the interval, slow_down adds 5 s
DEV-06 every other error stops
DEV-07 a timeout doubles the pause
DEV-08 a reply without an OAuth error is a pause
DEV-09 no poll after expiry
DEV-10 user_code and verification_uri are always shown
DEV-11 verification_uri_complete is never invented
DEV-12 verification URIs are https and clean
DEV-13 user_code is printable and short
DEV-14 a browser only when asked; cancel stops polling
DEV-15 device_code stays secret; token checks apply
CCG-01 basic authentication form-encodes id and secret
CCG-02 post authentication uses the body
CCG-03 exactly one authentication method per request
CCG-04 the method comes from configuration, metadata, or is basic; no cycling
CCG-05 a public client sends client_id and no Authorization
CCG-06 a refresh token from client credentials is dropped
CCG-07 a service never touches a person's tokens
CCG-08 a secret is read again for each grant
AST-01 client_assertion and its type, sub is the client
AST-02 short-lived assertions, each with its own jti
AST-03 aud is the issuer, typ says what it is for
AST-04 asymmetric signature with kid
AST-05 the same authentication at every endpoint
AST-06 the jwt-bearer grant is repeated, not refreshed
AST-07 a projected token file is read again each time
AST-08 one retry, only if the source changed
AST-09 audience is explicit, the default service account is not a source
AST-10 GitHub Actions tokens
TXR-01 subject and actor tokens with their types
TXR-02 issued_token_type is what was asked
TXR-03 N_A is not a bearer token
TXR-04 resource is an absolute URI
TXR-05 resource is repeated at both endpoints
TXR-06 invalid_target is final
TXR-07 cached tokens are keyed by everything they depend on
PAR-01 pushed if the server requires it
PAR-02 everything is pushed
PAR-03 request_uri and a positive lifetime
PAR-04 the browser carries client_id and request_uri only
PAR-05 a request_uri is used once
PAR-06 no fall-back to the front channel
DPO-01 well-formed proofs
DPO-02 ath on resource requests
DPO-03 one fresh proof per request
DPO-04 a nonce demanded by the token endpoint is used, twice at most
DPO-05 a nonce demanded by a resource costs no refresh
DPO-06 the newest nonce, per origin
DPO-07 malformed nonces are refused
DPO-08 a bound token is presented as DPoP
DPO-09 no downgrade when DPoP is required
DPO-10 refresh with the key that the token is bound to
DPO-11 an algorithm that the server lists
DPO-12 clock skew is explained and corrected once
DPO-13 dpop_jkt names the key used later
REV-01 the token travels in the body, to an https endpoint
REV-02 any 200 is success
REV-03 a 503 means that the token is still alive
REV-04 refresh token first, then access token
REV-05 revoked tokens are not used again
REV-06 logout deletes locally whatever the network does
BRR-01 the token goes in one header field, nowhere else
BRR-02 the token goes to https only
BRR-03 the token goes to configured origins only
BRR-04 no credential follows a redirect
BRR-05 no redirect is followed for a POST
BRR-06 WWW-Authenticate by its grammar
BRR-07 one refresh and one retry per 401
BRR-08 no refresh if the token has changed already
BRR-09 only authentication failures count
BRR-10 only what can be replayed is retried
BRR-11 a failed refresh after a 401 keeps the tokens
BRR-12 proxy credentials have a header and a slot of their own
BRR-13 Proxy-Authorization stays with the proxy
BRR-14 tokens from a command are checked
SEC-01 no secret in a repr or dump
SEC-02 no secret in an exception
SEC-03 no secret in a log
SEC-04 no secret in a URL, argument list or child environment
SEC-05 files are 0600 and ours
SEC-06 files are written atomically
SEC-07 records are keyed by identity, not host
SEC-08 no silent fall-back to a plaintext store
SEC-09 absent, locked and corrupt differ; none deletes
SEC-10 size limits never truncate
SEC-11 no public identifier is derived from a token
ERR-01 server text is escaped and cut
ERR-02 an error outside the alphabet is malformed
ERR-03 error_uri is shown only if https, and never opened
ERR-04 server text meets no markup or format engine
ERR-05 no raw body in a message
ERR-06 URLs are printed as ASCII
ERR-07 only documented errors for any input
RND-01 state and nonce have at least 128 bits from the system
RND-02 the verifier has 43 unreserved characters from 32 octets
RND-03 state, verifier and nonce are independent
RND-04 secrets are compared in constant time, whatever the input
HTM-01 pages escape every value
HTM-02 success is shown only after the checks
HTM-03 pages have strict headers
HTM-04 pages load nothing
HTM-05 the code leaves the address bar
NET-01 finite timeouts and sizes
NET-02 Retry-After is understood, bounded, and never trusted blindly
NET-03 no ambient credentials
NET-04 loopback never goes through a proxy
""".splitlines()
)

TESTS: Final = Path(__file__).parent


@frozen
class Claim:
    """A test says that it proves a requirement."""

    requirement: str
    test: str


def claims(root: Path = TESTS) -> Iterator[Claim]:
    """Every ``pytest.mark.req(...)`` in the test files, read without importing them."""
    for path in sorted(root.rglob("test_*.py")):
        where = path.relative_to(root.parent).as_posix()
        yield from _claims(ast.parse(path.read_text("utf-8")), where)


def _claims(node: ast.AST, where: str) -> Iterator[Claim]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = f"{where}::{node.name}"
    if isinstance(node, ast.Call) and _is_marker(node.func):
        for argument in node.args:
            named = argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument)
            yield Claim(str(named), where)
    for child in ast.iter_child_nodes(node):
        yield from _claims(child, where)


def _is_marker(func: ast.expr) -> bool:
    """Whether *func* is ``pytest.mark.req``."""
    return (
        isinstance(func, ast.Attribute)
        and func.attr == "req"
        and isinstance(func.value, ast.Attribute)
        and func.value.attr == "mark"
    )


def report() -> Iterator[str]:
    """The lines of the report."""
    proved: dict[str, list[str]] = {}
    for claim in claims():
        proved.setdefault(claim.requirement, []).append(claim.test)
    yield f"{len(proved)} of {len(REQUIREMENTS)} requirements have a test."
    for prefix, title in SECTIONS.items():
        names = [name for name in REQUIREMENTS if name.startswith(f"{prefix}-")]
        having = [name for name in names if name in proved]
        yield ""
        yield f"{prefix}  {title}: {len(having)} of {len(names)}"
        for name in names:
            mark = "✓" if name in proved else "·"
            yield f"  {mark} {name}  {REQUIREMENTS[name]}"
            yield from (f"              {test}" for test in proved.get(name, ()))


if __name__ == "__main__":
    print("\n".join(report()))
