"""``flyteauth accounts``: every login that this machine knows of."""

from __future__ import annotations

import json
from typing import Any

from flyteauth.devserver.serve import Running

from .conftest import BROWSER, Home, login

PLAINTEXT: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}


def listed(home: Home, *words: str, **environ: Any) -> list[dict[str, Any]]:
    ended = home.run("accounts", "--json", *words, **environ)
    assert (ended.status, ended.err) == (0, ""), ended
    logins: list[dict[str, Any]] = json.loads(ended.out)["logins"]
    return sorted(logins, key=lambda each: str(each["account"]))


def test_nothing_is_kept_and_nothing_is_made(home: Home) -> None:
    ended = home.run("accounts")
    assert (ended.status, ended.out, ended.err) == (
        0,
        "No login is kept on this machine.\n",
        "",
    )
    assert listed(home) == []
    assert list(home.path.iterdir()) == []


def test_each_login_is_listed_and_the_one_in_use_is_marked(home: Home, calm: Running) -> None:
    words = ("--endpoint", calm.base_url)
    login(home, calm.base_url, "--account", "work")
    assert home.run("login", *words, BROWSER=BROWSER, **PLAINTEXT).status == 0
    environ: dict[str, Any] = {
        "FLYTE_ADMIN_ENDPOINT": calm.base_url,
        "FLYTE_ADMIN_ACCOUNT": "work",
        **PLAINTEXT,
    }
    plain, work = listed(home, **environ)
    assert (work["account"], work["current"], work["kind"]) == ("work", True, "person")
    assert (plain["account"], plain["current"], plain["subject"]) == (None, False, "alice")
    assert "keyring" in plain["place"]
    assert work["place"].endswith("logins")
    assert work["authorised"]
    assert work["renews_itself"]

    ended = home.run("accounts", **environ)
    assert (ended.status, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split() == ["ENDPOINT", "ACCOUNT", "KIND", "WHO", "TOKEN", "KEPT", "IN"]
    (marked,) = (row for row in rows if row.lstrip().startswith("*"))
    assert "work" in marked
    assert "keyring" in ended.out
    ended = home.run("accounts", FLYTE_ADMIN_ENDPOINT="else.example.com", **PLAINTEXT)
    assert "uses none of them (else.example.com)" in ended.out


def test_what_is_out_of_reach_or_damaged_is_listed_as_that(home: Home, calm: Running) -> None:
    words = ("--endpoint", calm.base_url)
    assert home.run("login", *words, BROWSER=BROWSER, **PLAINTEXT).status == 0
    (there,) = home.path.rglob("logins/*")
    there.with_name("0" * 64).write_bytes(b"no login")
    found = listed(home, PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring")
    assert len(found) == 2
    assert all(each["error"] and not each["authorised"] for each in found)
    ended = home.run("accounts", PYTHON_KEYRING_BACKEND="keyring.backends.fail.Keyring")
    assert ended.status == 0
    assert ended.out.count("cannot be read") == 2


def test_where_logins_cannot_be_listed_is_said(home: Home) -> None:
    for store in ("keyring", "redis://me:canary@127.0.0.1:1/0"):
        environ: dict[str, Any] = {
            "FLYTE_ADMIN_ENDPOINT": "localhost",
            "FLYTE_ADMIN_TOKENSTORE": store,
        }
        ended = home.run("accounts", **environ)
        assert ended.status == 0
        assert ended.err.startswith("Not listed: ")
        assert "canary" not in ended.out + ended.err
        assert json.loads(home.run("accounts", "--json", **environ).out)["elsewhere"]


def test_a_login_in_a_keyring_that_is_used_on_demand_only_ends_on_demand(
    home: Home, calm: Running
) -> None:
    assert home.run("login", "--endpoint", calm.base_url, BROWSER=BROWSER, **PLAINTEXT).status == 0
    ended = home.run("logout", "--all")
    ended.failed_with(1, "only with tokenStore: keyring", "with FLYTE_ADMIN_TOKENSTORE=keyring")
    ended = home.run("logout", "--all", FLYTE_ADMIN_TOKENSTORE="keyring")
    assert (ended.status, ended.out) == (0, "")
    assert "Logged out of localhost" in ended.err
    assert listed(home) == []
    assert "No login is kept" in home.run("accounts", **PLAINTEXT).out


def test_a_configuration_that_cannot_be_used_keeps_no_login(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    text = f"admin:\n  endpoint: {calm.base_url}\n  caCertFilePath: gone.pem\n"
    home.write(".flyte/config.yaml", text)
    home.run("logout").failed_with(1, "gone.pem", "run: flyteauth logout --all")
    assert home.run("logout", "--all").status == 0
    assert home.stored() == {}


def test_a_configuration_that_is_broken_hides_nothing(home: Home, calm: Running) -> None:
    login(home, calm.base_url)
    home.write(".flyte/config.yaml", "admin: [\n")
    ended = home.run("accounts")
    assert ended.status == 0
    assert "alice" in ended.out
    assert ended.err.count("\n") == 1
