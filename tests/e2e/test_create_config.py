"""``flyteauth create config``: what it writes, what it leaves alone, and when it asks."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from flyteauth.config import resolve

from .conftest import BROWSER, DEADLINE, FLYTEAUTH, Ended, Home, Serve, Terminals

FILE = ".flyte/config.yaml"
OLD = """\
# ours
admin:
  endpoint: dns:///flyte.example.com
  auth_type: DeviceFlow
  httpProxyURL: http://proxy:3128
image:
  builder: remote
custom: {kept: [1, 2]}
"""


def create(home: Home, *words: str, **environ: str) -> Ended:
    return home.program([FLYTEAUTH, "create", "config", *words], environ)


def written(home: Home, name: str = FILE) -> object:
    return yaml.safe_load((home.path / name).read_text("utf-8"))


# A new file.


def test_the_file_of_the_guides_is_written_without_what_is_the_default(home: Home) -> None:
    ended = create(home, "--endpoint", "https://your-endpoint.example.cloud")
    assert (ended.status, ended.out) == (0, "")
    assert str(home.path / FILE) in ended.err
    assert ended.err.endswith("Next: flyteauth login\n")
    assert (home.path / FILE).read_text("utf-8") == (
        "admin:\n  endpoint: dns:///your-endpoint.example.cloud\nimage:\n  builder: local\n"
    )


def test_project_domain_and_organisation_are_a_section_of_their_own(home: Home) -> None:
    words = ("--project", "flytesnacks", "--domain", "development", "--org", "acme")
    assert create(home, "--endpoint", "http://your-endpoint.example.cloud", *words).status == 0
    assert written(home) == {
        "admin": {"endpoint": "dns:///your-endpoint.example.cloud"},
        "image": {"builder": "local"},
        "task": {"org": "acme", "project": "flytesnacks", "domain": "development"},
    }


def test_the_organisation_is_in_the_name_of_union_s_own_hosts_and_of_no_others(home: Home) -> None:
    assert create(home, "--endpoint", "https://acme.hosted.unionai.cloud").status == 0
    assert "task" in str(written(home))
    assert resolve({}, environ={}, path=home.path / FILE, search=False).org == "acme"
    assert create(home, "--endpoint", "127.0.0.1.example.com", "--force").status == 0
    assert "acme" not in str(written(home))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *[(name, None) for name in ("pkce", "PKCE", "Pkce")],
        *[(name, "DeviceFlow") for name in ("headless", "device-flow", "device_flow")],
        *[(name, "DeviceFlow") for name in ("Headless", "DeviceFlow")],
        *[(name, "ClientSecret") for name in ("client-secret", "client_secret", "clientsecret")],
        *[(name, "ClientSecret") for name in ("app-credential", "app_credential")],
        *[(name, "ExternalCommand") for name in ("external-command", "external_command")],
        *[(name, "ExternalCommand") for name in ("externalcommand", "command", "custom")],
        ("none", "NoAuth"),
    ],
)
def test_every_spelling_of_an_auth_type_is_written_in_the_one_that_all_tools_read(
    said: str, meant: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flyteauth.cli import main

    path = tmp_path / "config.yaml"
    words = ["--endpoint", "flyte.example.com", "--auth-type", said, "--output", str(path)]
    assert main(["create", "config", *words]) == 0
    capsys.readouterr()
    admin = yaml.safe_load(path.read_text("utf-8"))["admin"]
    assert admin.get("authType") == meant
    assert list(admin)[-1] == "endpoint"


@pytest.mark.parametrize(
    ("said", "endpoint", "insecure"),
    [
        ("flyte.example.com", "dns:///flyte.example.com", None),
        ("dns:///Flyte.example.com:8443/", "dns:///flyte.example.com:8443", None),
        ("http://flyte.example.com", "dns:///flyte.example.com", None),
        ("https://localhost:18443", "dns:///localhost:18443", None),
        ("http://localhost:41187", "dns:///localhost:41187", True),
        ("http://[::1]:8080", "dns:///[::1]:8080", True),
    ],
)
def test_an_endpoint_is_written_in_one_way_and_means_what_was_said(
    home: Home, said: str, endpoint: str, insecure: bool | None
) -> None:
    assert create(home, "--endpoint", said).status == 0
    file = home.path / FILE
    admin = yaml.safe_load(file.read_text("utf-8"))["admin"]
    assert (admin["endpoint"], admin.get("insecure")) == (endpoint, insecure)
    ours = resolve({}, environ={}, path=file, search=False).endpoint
    assert ours == resolve({"endpoint": said}, environ=None, search=False).endpoint


def test_a_service_is_configured_by_where_its_secret_is_and_never_by_the_secret(
    home: Home,
) -> None:
    words = ("--endpoint", "flyte.example.com", "--auth-type", "client-secret")
    ended = create(home, *words)
    assert ended.status == 0
    assert "--client-secret-location" in ended.err
    ended = create(home, "--client-id", "ci", "--client-secret-env-var", "CI_SECRET", "--force")
    assert ended.status == 0, ended
    assert ended.err.endswith("Next: flyteauth get project\n")
    assert written(home) == {
        "admin": {
            "authType": "ClientSecret",
            "endpoint": "dns:///flyte.example.com",
            "clientId": "ci",
            "clientSecretEnvVar": "CI_SECRET",
        },
        "image": {"builder": "local"},
    }
    ended = create(home, "--client-secret-env-var", "s3cr3t/canary", "--force")
    ended.failed_with(2, "environment variable")
    assert "canary" not in ended.err
    # A person's login has no use for it; a secret that is still found would go before.
    assert create(home, "--auth-type", "pkce", "--force").status == 0
    assert written(home) == {
        "admin": {"endpoint": "dns:///flyte.example.com"},
        "image": {"builder": "local"},
    }


def test_a_certificate_authority_is_checked_and_written_with_its_whole_name(home: Home) -> None:
    words = ("--endpoint", "flyte.example.com", "--ca-cert", "ca.pem")
    create(home, *words).failed_with(2, "--ca-cert", "ca.pem")
    home.write("ca.pem", "not a certificate")
    create(home, *words).failed_with(2, "--ca-cert", "PEM")
    assert not (home.path / FILE).exists()
    home.write("ca.pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    assert create(home, *words).status == 0
    assert f"caCertFilePath: {home.path / 'ca.pem'}" in (home.path / FILE).read_text("utf-8")


@pytest.mark.parametrize("words", [("--output", "there/of/mine.yaml"), ("-o", "mine.yaml")])
def test_a_file_elsewhere_is_named_in_what_to_run_next(home: Home, words: tuple[str, str]) -> None:
    ended = create(home, "--endpoint", "flyte.example.com", *words)
    assert ended.status == 0
    assert ended.err.endswith(f"Next: flyteauth --config {home.path / words[1]} login\n")
    assert not (home.path / FILE).exists()


def test_the_option_config_names_the_file_as_it_does_elsewhere(home: Home) -> None:
    words = ("create", "config", "--endpoint", "flyte.example.com")
    assert home.run("--config", "mine.yaml", *words).status == 0
    assert (home.path / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["config.yaml", "named.yaml"])
def test_another_file_that_goes_before_it_is_pointed_out(home: Home, name: str) -> None:
    other = home.write(name, "admin:\n  endpoint: other.example.com\n")
    words = ("--endpoint", "flyte.example.com", "-o", f"{home.path}/.union/config.yaml")
    ended = create(home, *words, UCTL_CONFIG=str(other))
    assert ended.status == 0
    assert f"flyteauth: {other} goes before it" in ended.err


def test_what_is_not_searched_for_has_nothing_before_it(home: Home) -> None:
    home.write(FILE, OLD)
    ended = create(home, "--endpoint", "flyte.example.com", "-o", "other.yaml")
    assert ended.status == 0
    assert "goes before it" not in ended.err
    assert ended.err.endswith(f"Next: flyteauth --config {home.path}/other.yaml login\n")


# A file that is there.


def test_what_is_not_ours_is_written_as_it_was(home: Home) -> None:
    """``yes``, ``010`` and ``12:30:45`` are other values to us than to other tools."""
    strange = "at: 12:30:45\n  mode: 010\n  on: yes\n  big: 1_000\n  none: ~\n"
    base = f"base: &base\n  {strange}"
    text = f"admin:\n  endpoint: one.example.com\n  x-time: 12:30:45\nother:\n  {strange}{base}copy: *base\n"
    path = home.write(FILE, text)
    assert create(home, "--project", "p", "--force").status == 0
    now = path.read_text("utf-8")
    assert "x-time: 12:30:45\n" in now
    assert f"other:\n  {strange}" in now
    assert f"base: &id001\n  {strange}" in now
    assert "copy: *id001\n" in now
    assert yaml.safe_load(now) == {**yaml.safe_load(text), "task": {"project": "p"}}


def test_what_is_no_file_is_not_replaced_by_one(home: Home) -> None:
    """As root, that would be the end of /dev/null."""
    pipe = home.path / "pipe"
    os.mkfifo(pipe)
    words = ("--endpoint", "flyte.example.com", "--force", "-o")
    create(home, *words, "pipe").failed_with(1, f"{pipe} is not a file", "--output")
    assert pipe.is_fifo()
    (home.path / "folder").mkdir()
    create(home, *words, "folder").failed_with(1, "is not a file")
    assert sorted(path.name for path in home.path.iterdir()) == ["folder", "pipe"]


def test_without_a_person_a_file_is_changed_only_by_force(home: Home) -> None:
    home.write(FILE, OLD)
    words = ("--endpoint", "dns:///flyte.example.com", "--auth-type", "client-secret")
    create(home, *words).failed_with(3, FILE, "--force", "ClientSecret")
    assert (home.path / FILE).read_text("utf-8") == OLD
    assert [path.name for path in (home.path / ".flyte").iterdir()] == ["config.yaml"]


def test_what_is_not_said_stays_and_the_old_file_is_kept(home: Home) -> None:
    path = home.write(FILE, OLD)
    path.chmod(0o640)
    ended = create(home, "--auth-type", "external-command", "--project", "p", "--force")
    assert ended.status == 0
    assert f"with its comments, it is kept in {path}.bak" in ended.err
    assert written(home) == {
        "admin": {
            "endpoint": "dns:///flyte.example.com",
            "auth_type": "ExternalCommand",
            "httpProxyURL": "http://proxy:3128",
        },
        "image": {"builder": "remote"},
        "custom": {"kept": [1, 2]},
        "task": {"project": "p"},
    }
    kept = path.with_name("config.yaml.bak")
    assert kept.read_text("utf-8") == OLD
    assert {stat.S_IMODE(each.stat().st_mode) for each in (path, kept)} == {0o640}


def test_switching_to_pkce_and_to_device_flow_is_done_as_the_guides_say(home: Home) -> None:
    there = ("--endpoint", "dns:///flyte.example.com")
    assert create(home, *there, "--auth-type", "headless").status == 0
    assert resolve({}, environ={}, path=home.path / FILE, search=False).auth_type == "DeviceFlow"
    assert create(home, *there, "--force").status == 0
    assert resolve({}, environ={}, path=home.path / FILE, search=False).auth_type == "Pkce"
    ended = create(home, *there, "--force")
    assert ended.status == 0
    assert "nothing was changed" in ended.err
    assert "DeviceFlow" in (home.path / ".flyte/config.yaml.bak").read_text("utf-8")


SERVICE = ("--auth-type", "client-secret", "--client-id", "ci", "--client-secret-location", "s")


@pytest.mark.parametrize("named", [True, False], ids=["authType", "a secret alone"])
def test_switching_from_a_client_secret_to_pkce_leaves_nothing_of_it(
    home: Home, named: bool
) -> None:
    there = ("--endpoint", "dns:///flyte.example.com")
    assert create(home, *there, *SERVICE).status == 0
    file = home.path / FILE
    if not named:
        file.write_text(file.read_text("utf-8").replace("  authType: ClientSecret\n", ""), "utf-8")
    assert create(home, *there, "--force").status == 0
    assert written(home) == {
        "admin": {"endpoint": "dns:///flyte.example.com"},
        "image": {"builder": "local"},
    }
    assert "clientId: ci" in (home.path / ".flyte/config.yaml.bak").read_text("utf-8")


def test_a_service_that_names_its_client_beside_the_endpoint_stays_one(home: Home) -> None:
    there = ("--endpoint", "dns:///flyte.example.com")
    assert create(home, *there, *SERVICE).status == 0
    assert create(home, *there, "--client-id", "other", "--force").status == 0
    assert "authType: ClientSecret" in (home.path / FILE).read_text("utf-8")


def test_the_client_of_a_service_is_no_person_s_client_even_without_a_secret(home: Home) -> None:
    there = ("--endpoint", "dns:///flyte.example.com")
    assert create(home, *there, *SERVICE[:4]).status == 0
    assert create(home, *there, "--force").status == 0
    assert "clientId" not in (home.path / FILE).read_text("utf-8")


@pytest.mark.parametrize(
    ("answer", "changed"), [("y\n", True), ("\n", False), ("n\n", False), ("\x04", False)]
)
def test_at_a_terminal_the_change_is_shown_and_asked_for(
    home: Home, answer: str, changed: bool
) -> None:
    home.write(FILE, OLD)
    argv = (FLYTEAUTH, "create", "config", "--endpoint", "https://new.example.com")
    ended = home.at_terminal(argv, {}, typed=answer)
    assert "admin.endpoint: dns:///new.example.com" in ended.err
    assert "no admin.auth_type" in ended.err
    assert "[y/N]" in ended.err
    assert ended.status == (0 if changed else 1)
    line = " \n" if answer == "\x04" else " "  # the echo of an answer came before the question
    assert ended.err.endswith(f"[y/N]{line}Nothing was changed.\n") is not changed
    assert "--force" not in ended.err
    assert ((home.path / FILE).read_text("utf-8") != OLD) is changed


def test_a_link_stays_a_link(home: Home) -> None:
    real = home.write("dotfiles/config.yaml", OLD)
    (home.path / ".flyte").mkdir()
    (home.path / FILE).symlink_to(real)
    assert create(home, "--project", "p", "--force").status == 0
    assert (home.path / FILE).is_symlink()
    assert "project: p" in real.read_text("utf-8")


# What cannot be done.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("admin: [\n", "not YAML"),
        ("admin: text\n", "not a mapping"),
        ("- admin\n", "not a mapping"),
        ("admin:\n  endpoint: a\n  endpoint: b\n", "twice"),
        ("\x00", "YAML"),
    ],
)
def test_what_is_no_configuration_is_left_as_it_is(home: Home, text: str, said: str) -> None:
    home.write(FILE, text)
    ended = create(home, "--endpoint", "flyte.example.com", "--force")
    ended.failed_with(1, FILE, said)
    assert "remove it" in ended.err or text == "admin: text\n"
    assert (home.path / FILE).read_text("utf-8") == text
    assert [path.name for path in (home.path / ".flyte").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--endpoint"),
        (("--force",), "--endpoint"),
        (("--endpoint", "ftp://flyte.example.com"), "--endpoint"),
        (("--endpoint", "https://alice:canary@flyte.example.com"), "user name"),
        (("--endpoint", "flyte.example.com", "--auth-type", "magic"), "--auth-type: this is not"),
        (("--endpoint", "http://flyte.example.com", "--insecure"), "insecure"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    home: Home, words: tuple[str, ...], said: str
) -> None:
    ended = create(home, *words)
    ended.failed_with(2, "argument --", said)
    assert "canary" not in ended.err
    assert list(home.path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "said"), [("/dev/null/config.yaml", "--output"), (".", "is not a file")]
)
def test_what_cannot_be_written_is_one_line(
    home: Home, tmp_path: Path, output: str, said: str
) -> None:
    words = ("--endpoint", "flyte.example.com", "-o", output)
    create(home, *words, FLYTEAUTH_HOME=str(tmp_path / "ours")).failed_with(1, said)
    assert list(home.path.iterdir()) == []


# Others who change it, before and meanwhile.


def test_whatever_the_file_has_been_is_kept_beside_it(home: Home) -> None:
    path = home.write(FILE, OLD)
    said = []
    for endpoint in ("two", "three", "two", "three", "two"):
        ended = create(home, "--endpoint", f"{endpoint}.example.com", "--force")
        assert ended.status == 0, ended
        said.append(ended.err.splitlines()[0].partition("kept in ")[2])
    names = ("", ".1", ".2", ".1", ".2")
    assert said == [f"{path}.bak{name}." for name in names]
    assert path.with_name("config.yaml.bak").read_text("utf-8") == OLD
    for name, kept in ((".1", "two"), (".2", "three")):
        text = path.with_name(f"config.yaml.bak{name}").read_text("utf-8")
        assert f"dns:///{kept}.example.com" in text
    assert len(list(path.parent.iterdir())) == 4


def test_what_is_called_like_the_old_file_and_is_none_stays(home: Home) -> None:
    path = home.write(FILE, OLD)
    path.with_name("config.yaml.bak").mkdir()
    path.with_name("config.yaml.bak.1").symlink_to("nowhere")
    ended = create(home, "--project", "p", "--force")
    assert f"kept in {path}.bak.2.\n" in ended.err
    assert path.with_name("config.yaml.bak.1").is_symlink()
    assert path.with_name("config.yaml.bak.2").read_text("utf-8") == OLD


def test_of_several_changes_at_once_none_is_lost(home: Home) -> None:
    path = home.write(FILE, OLD)
    for turn in range(5):
        changes = (("--project", f"p{turn}"), ("--domain", f"d{turn}"), ("--org", f"o{turn}"))
        with ExitStack() as stack:
            processes = [
                stack.enter_context(home.started("create", "config", *words, "--force"))
                for words in changes
            ]
            assert [process.communicate(timeout=DEADLINE)[0] for process in processes] == [""] * 3
            assert [process.returncode for process in processes] == [0, 0, 0]
        task = {"org": f"o{turn}", "project": f"p{turn}", "domain": f"d{turn}"}
        assert yaml.safe_load(path.read_text("utf-8"))["task"] == task
    assert not [each for each in path.parent.iterdir() if "config.yaml" not in each.name]


def test_what_was_changed_while_somebody_was_asked_is_not_overwritten(
    home: Home, at_terminal: Terminals
) -> None:
    path = home.write(FILE, OLD)
    started = at_terminal("create", "config", "--endpoint", "https://new.example.com")
    started.sees("[y/N]")
    changed = f"{OLD}# and more\n"
    path.write_text(changed, "utf-8")
    started.types("y\n")
    assert started.ends().status == 1
    assert "was changed meanwhile; run it again" in started.view.prose
    assert path.read_text("utf-8") == changed
    assert [each.name for each in path.parent.iterdir()] == ["config.yaml"]


def test_where_nothing_can_be_locked_a_file_is_changed_even_so(home: Home) -> None:
    home.write(FILE, OLD)
    assert create(home, "--project", "p", "--force", FLYTEAUTH_HOME="/dev/null/none").status == 0
    assert "project: p" in (home.path / FILE).read_text("utf-8")


# The first lines of the guides.


def test_create_config_and_then_any_command_logs_in(home: Home, serve: Serve) -> None:
    running = serve()
    assert create(home, "--endpoint", running.base_url).status == 0
    ended = home.at_terminal((FLYTEAUTH, "get", "project"), {"BROWSER": BROWSER})
    assert ended.status == 0, ended
    assert "flytesnacks" in ended.out
    assert home.run("get", "project") == Ended(0, ended.out, "")


def test_the_device_flow_of_a_written_file_shows_a_code(home: Home, serve: Serve) -> None:
    running = serve()
    words = ("--endpoint", running.base_url, "--auth-type", "headless")
    assert create(home, *words, "--project", "flytesnacks", "--domain", "development").status == 0
    ended = home.at_terminal((FLYTEAUTH, "get", "app"), {"BROWSER": "false"})
    assert ended.status == 0, ended
    assert f"{running.base_url}/activate" in ended.err
    assert "hello-fastapi" in ended.out


def test_the_older_spelling_of_login_is_the_same_login(home: Home, serve: Serve) -> None:
    running = serve()
    ended = home.run("create", "login", "--host", running.base_url, BROWSER=BROWSER)
    assert (ended.status, ended.out) == (0, "")
    assert "/oauth2/authorize?" in ended.err
    assert "Logged in to" in ended.err
    assert home.run("whoami", "--endpoint", running.base_url).status == 0
    ended = home.run("create", "login", "--host", "localhost:9", "--headless")
    ended.failed_with(1, "localhost:9")
