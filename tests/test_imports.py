"""What an import brings along, and which names the package has."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import flyteauth

PACKAGE = Path(flyteauth.__file__)

# Never for a program that only mentions flyteauth.
HEAVY = frozenset(
    "anyio asyncio attr attrs concurrent email h11 httpcore httpx keyring logging platformdirs "
    "pydantic re ssl trio truststore typing uvicorn yaml".split()
)
# Nor for one that mentions a session: they come with its first use, in a worker thread.
AT_FIRST_USE = frozenset(
    "asyncio concurrent email h11 httpcore httpx http keyring platformdirs pydantic socket ssl "
    "subprocess trio truststore uvicorn yaml".split()
)


def loaded(*statements: str) -> list[set[str]]:
    """The top-level modules that each statement adds, in a Python of its own."""
    program = (
        "import sys, json\n"
        "before, added = set(sys.modules), []\n"
        f"for statement in {list(statements)!r}:\n"
        "    exec(statement)\n"
        "    added.append(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
        "    before = set(sys.modules)\n"
        "print(json.dumps(added))\n"
    )
    # Without site, whose .pth files import what they like.
    paths = [path for path in sys.path if path and Path(path).is_dir()]
    program = f"import sys; sys.path[:] = {paths!r}\n{program}"
    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    return [set(names) for names in json.loads(done.stdout)]


def test_mentioning_flyteauth_imports_nothing_heavy() -> None:
    # json and what it needs is there before.
    package, errors = loaded("import flyteauth", "flyteauth.Error")
    assert package & HEAVY == set()
    assert package <= {"flyteauth", "importlib", "warnings", "__future__", "_weakrefset"}
    assert errors & (HEAVY - {"typing", "re"}) == set()


def test_a_session_brings_no_http_no_tls_no_event_loop_and_no_yaml() -> None:
    (session,) = loaded("import flyteauth; flyteauth.Session")
    assert session & AT_FIRST_USE == set()


def test_configuration_is_checked_when_a_session_is_made_without_any_http() -> None:
    program = "import flyteauth; flyteauth.Session(endpoint='localhost')"
    (made,) = loaded(program)
    assert made & {"httpx", "httpcore", "ssl", "trio", "uvicorn", "keyring"} == set()


# What ``flyteauth token`` does not need if a stored token is good.
SESSION = frozenset(
    "anyio asyncio attr attrs coredis email filelock h11 http httpcore httpx keyring logging "
    "socket ssl subprocess threading trio truststore uvicorn".split()
)


@pytest.mark.parametrize("configured", ["file", "argument"])
def test_a_stored_token_is_printed_without_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: str
) -> None:
    import time

    from flyteauth._identity import identity
    from flyteauth._io.store.file import FileStore
    from flyteauth._sansio.record import Record
    from flyteauth._sansio.token import Token
    from flyteauth.config import resolve

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    settings = resolve({"endpoint": "flyte.example.com"}, environ=None, search=False)
    token = Token("t", time.time(), time.time() + 3600.0, "r")
    FileStore().save_sync(identity(settings), Record(token, "https://as.example/t", "me"))
    words = ["token", "--json"]
    if configured == "file":
        file = tmp_path / ".flyte" / "config.yaml"
        file.parent.mkdir()
        file.write_text("admin:\n  endpoint: dns:///flyte.example.com\n", encoding="utf-8")
    else:
        words += ["--endpoint", "flyte.example.com"]
    used, threads = loaded(
        "import io, os; out, sys.stdout = sys.stdout, io.StringIO()\n"
        "from flyteauth.cli import main\n"
        f"status = main({words!r}); said, sys.stdout = sys.stdout.getvalue(), out\n"
        "assert (status, json.loads(said)['access_token']) == (0, 't'), said",
        "import threading; assert threading.active_count() == 1",
    )
    assert used & SESSION == set()
    assert ("yaml" in used) == (configured == "file")
    assert "threading" in threads


def test_help_is_written_without_a_session() -> None:
    (used,) = loaded(
        "import io; out, sys.stdout = sys.stdout, io.StringIO()\n"
        "from flyteauth.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "said, sys.stdout = sys.stdout.getvalue(), out\n"
        "assert 'create config' in said"
    )
    assert used & (SESSION | {"yaml", "pathlib"}) == set()


def test_the_names_of_the_package_are_sorted_complete_and_importable() -> None:
    assert flyteauth.__all__ == sorted(flyteauth.__all__)
    assert len(set(flyteauth.__all__)) == len(flyteauth.__all__)
    assert set(flyteauth.__all__) <= set(dir(flyteauth))
    for name in flyteauth.__all__:
        value = getattr(flyteauth, name)
        if isinstance(value, types.ModuleType):
            assert value.__name__ == f"flyteauth.{name}"
        else:
            assert value.__name__ == name
            assert value.__doc__ or issubclass(value, Exception), name


def test_the_names_for_type_checkers_are_the_names_there_are() -> None:
    tree = ast.parse(PACKAGE.read_text("utf-8"))
    (checked,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    named = {
        alias.asname or alias.name
        for node in ast.walk(checked)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert named == set(flyteauth.__all__)


def test_the_errors_are_all_there_in_both_places() -> None:
    from flyteauth import errors

    assert errors.__all__ == sorted(errors.__all__)
    assert set(errors.__all__) <= set(flyteauth.__all__)
    for name in errors.__all__:
        assert getattr(errors, name) is getattr(flyteauth, name)
        assert issubclass(getattr(errors, name), flyteauth.Error)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(flyteauth, "nonsense")  # noqa: B009
    with pytest.raises(ImportError):
        from flyteauth import nonsense  # type: ignore[attr-defined]  # noqa: F401


@pytest.mark.parametrize("name", ["init", "init_from_config", "init_from_api_key"])
def test_each_function_has_a_twin_with_the_same_arguments(name: str) -> None:
    import inspect

    sync, twin = getattr(flyteauth, name), getattr(flyteauth, f"a{name}")
    assert inspect.signature(sync).parameters == inspect.signature(twin).parameters
    assert sync.__doc__
    assert not inspect.iscoroutinefunction(sync)
    assert inspect.iscoroutinefunction(twin)


def test_each_method_of_a_session_has_a_twin() -> None:
    import inspect

    ours = {"aclose": "close"}
    for name, method in vars(flyteauth.Session).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        twin = getattr(flyteauth.SyncSession, ours.get(name, name))
        assert inspect.signature(twin).parameters == inspect.signature(method).parameters, name


def test_init_takes_the_names_that_flyte_takes() -> None:
    import inspect

    names = set(inspect.signature(flyteauth.init).parameters)
    assert names >= set(
        "endpoint headless api_key auth_type client_id client_credentials_secret scopes insecure "
        "insecure_skip_verify ca_cert_file_path http_proxy_url disable_keyring org project domain "
        "lazy".split()
    )
