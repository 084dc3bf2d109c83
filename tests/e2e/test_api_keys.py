"""``flyteauth create api-key`` and ``delete api-key``: a secret is shown once, and then works."""

from __future__ import annotations

import json
import re
from base64 import b64decode

import pytest

from flyteauth.devserver.serve import Running

from .conftest import FLYTEAUTH, Home

EXPORT = re.compile(r'^export FLYTE_API_KEY="([A-Za-z0-9+/]+=*)"$', re.MULTILINE)


@pytest.mark.parametrize("older", [(), ("admin",)])
def test_a_new_key_is_shown_once_and_is_all_that_a_machine_needs(
    logged_in: Home, older: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = f"my-key{len(older)}"
    ended = logged_in.run("create", "api-key", *older, "--name", name)
    assert ended.status == 0, ended
    assert f"client id:      {name}\n" in ended.out
    found = EXPORT.search(ended.out)
    assert found is not None
    assert f"API key:        {found[1]}\n" in ended.out
    assert f":{name}:" in b64decode(found[1]).decode()
    assert "not be shown again" in ended.err
    assert "not usable by flyte.init(api_key=)" in ended.err  # because of the port
    assert "which takes host:client_id:client_secret:org" in ended.err
    assert found[1] not in ended.err

    elsewhere = Home(tmp_path_factory.mktemp("elsewhere"))
    ended = elsewhere.run("get", "project", FLYTE_API_KEY=found[1])
    assert (ended.status, ended.err) == (0, "")
    assert "flytesnacks" in ended.out
    secret = b64decode(found[1]).decode().split(":")[-2]
    for words in (("get", "api-key"), ("get", "api-key", name, "--json")):
        ended = logged_in.run(*words)
        assert name in ended.out
        assert secret not in ended.out
    assert secret not in str(logged_in.stored())


def test_the_line_for_a_shell_can_be_given_to_one(logged_in: Home) -> None:
    line = f'eval "$({FLYTEAUTH} create api-key --name evaluated | grep ^export)"'
    script = f'{line}; rm -r .flyte; test -n "$FLYTE_API_KEY" && exec {FLYTEAUTH} whoami'
    ended = logged_in.program(["bash", "-c", script], {})
    assert ended.status == 0, ended
    assert ended.out.startswith("evaluated")


def test_a_program_gets_one_document(logged_in: Home, calm: Running) -> None:
    ended = logged_in.run("create", "api-key", "--name", "For a Program", "--output", "json")
    assert ended.status == 0, ended
    key = json.loads(ended.out)
    assert (key["client_id"], key["name"]) == ("for-a-program", "For a Program")
    assert b64decode(key["api_key"]).decode().endswith(f":{key['client_secret']}:None")
    assert key["endpoint"] == calm.base_url
    # The same secret in a file, as the guides configure it.
    secret = logged_in.write("secret.txt", key["client_secret"] + "\n")
    words = ["--auth-type", "client-secret", "--client-id", key["client_id"]]
    words += ["--client-secret-location", str(secret), "--force"]
    assert logged_in.run("create", "config", *words).status == 0
    assert logged_in.run("whoami").out.startswith("for-a-program")


def test_a_key_is_found_by_its_name_and_by_its_client_id(logged_in: Home) -> None:
    assert logged_in.run("create", "api-key", "--name", "a b").status == 0
    by_name = logged_in.run("get", "api-key", "a b")
    assert by_name.status == 0, by_name
    assert by_name.out.splitlines()[1].startswith("a b\ta-b\t")
    assert logged_in.run("get", "api-key", "a-b") == by_name


@pytest.mark.parametrize(("where", "why"), [(">/dev/full", "no space"), (">&-", "bad file")])
@pytest.mark.parametrize("output", ["text", "json"])
def test_a_key_that_could_not_be_shown_can_be_deleted(
    logged_in: Home, where: str, why: str, output: str
) -> None:
    create = f"{FLYTEAUTH} create api-key --name 'Never Seen' --output {output} {where}"
    ended = logged_in.program(["sh", "-c", create], {})
    assert (ended.status, ended.out) == (1, "")
    first, second = ended.err.splitlines()
    said, _, delete = first.rpartition(": ")
    assert said == (
        "flyteauth: the API key 'Never Seen' was made but could not be shown; delete it"
    )
    assert why in second
    assert delete == "flyteauth delete api-key never-seen --yes"
    assert logged_in.run(*delete.split()[1:]).status == 0


@pytest.mark.parametrize(
    ("name", "said"), [("demo-ci", "another name"), ("!", "letters"), ("", "letters")]
)
def test_a_name_that_cannot_be_had(logged_in: Home, name: str, said: str) -> None:
    logged_in.run("create", "api-key", "--name", name).failed_with(1, said)


def test_a_key_needs_a_name(logged_in: Home) -> None:
    ended = logged_in.run("create", "api-key")
    assert ended.status == 2
    assert "--name" in ended.err
    assert "admin" in logged_in.run("create", "api-key", "admni", "--name", "x").err


def test_deleting_ends_a_key_and_asks_first(logged_in: Home) -> None:
    out = logged_in.run("create", "api-key", "--name", "short-lived", "--json").out
    key = json.loads(out)["api_key"]
    assert logged_in.run("whoami", FLYTE_API_KEY=key).status == 0
    delete = ("delete", "api-key", "short-lived")

    logged_in.run(*delete).failed_with(3, "--yes")
    for answer in ("\n", "n\n", "yeah\n", "\x04"):
        ended = logged_in.at_terminal((FLYTEAUTH, *delete), {}, typed=answer)
        assert ended.status == 1, ended
        assert "Delete the API key short-lived?" in ended.err
        assert ended.err.endswith("The API key short-lived was not deleted.\n")
        assert "--yes" not in ended.err
    assert logged_in.run("get", "api-key", "short-lived").status == 0

    ended = logged_in.at_terminal((FLYTEAUTH, *delete), {}, typed="y\n")
    assert ended.status == 0, ended
    assert "Deleted" in ended.err
    assert logged_in.run("whoami", FLYTE_API_KEY=key).status == 1
    logged_in.run("get", "api-key", "short-lived").failed_with(1, "no API key named short-lived")
    logged_in.run(*delete, "--yes").failed_with(1, "no API key named short-lived")


def test_deleting_without_a_question(logged_in: Home) -> None:
    assert logged_in.run("create", "api-key", "--name", "unasked").status == 0
    ended = logged_in.run("delete", "api-key", "unasked", "-y")
    assert (ended.status, ended.out, ended.err) == (0, "", "Deleted the API key unasked.\n")
