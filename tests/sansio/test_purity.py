"""
The core is pure, and every room of the package imports only what it may.

Read from the source with ast, so that it holds for modules that no test imports, and for those
that are yet to come.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

import flyteauth

ROOT: Final = Path(flyteauth.__file__).parent
CORE: Final = ROOT / "_sansio"

# What the core may import from elsewhere: no clock, no randomness, no I/O, no concurrency.
PURE: Final = frozenset(
    "__future__ abc attrs base64 binascii collections collections.abc datetime hashlib hmac "
    "ipaddress json math re types typing unicodedata urllib.parse".split()
)

# The layers of the core, each above those before it. What stands in one layer does not know of
# its neighbours: grants never import each other.
LAYERS: Final = (
    {"errors", "challenges", "urls", "value"},
    {"http", "token", "origins"},
    {"flow"},
    {"client", "redirect"},
    {"tokens"},
    {"id_token", "keyring_layouts", "record", "renewal", "command"},
    {"exchanges", "discovery", "authorization_code", "device_authorization", "api_key"},
    {"connect"},
)

# Names that would read a clock or a source of randomness.
IMPURE: Final = frozenset({"now", "utcnow", "today", "urandom", "time", "monotonic", "sleep"})


@frozen
class Import:
    """One imported module, with the line that does it."""

    path: str
    line: int
    module: str


def modules(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def module_name(path: Path) -> str:
    parts = ("flyteauth", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, lazy ones included, as absolute names."""
    where = path.relative_to(ROOT.parent).as_posix()
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(where, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:  # "from . import http" imports a module
                yield Import(where, node.lineno, _module(module, alias.name))


def _module(module: str, name: str) -> str:
    if module.split(".", maxsplit=1)[0] != "flyteauth":
        return module
    path = ROOT.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.is_dir() or path.with_suffix(".py").exists() else module


CORE_MODULES: Final = [path for path in modules(CORE) if path.name != "__init__.py"]


def test_imports_are_found_wherever_they_are() -> None:
    found = {entry.module for entry in imports(CORE / "authorization_code.py")}
    assert {"hashlib", "base64", "flyteauth._sansio.client", "flyteauth._sansio.tokens"} <= found


@pytest.mark.req("CLK-08")
@pytest.mark.parametrize("path", CORE_MODULES, ids=lambda path: path.stem)
def test_the_core_imports_attrs_and_the_pure_standard_library(path: Path) -> None:
    foreign = [
        entry
        for entry in imports(path)
        if entry.module not in PURE and not entry.module.startswith("flyteauth._sansio")
    ]
    assert foreign == []


@pytest.mark.parametrize("path", CORE_MODULES, ids=lambda path: path.stem)
def test_the_core_has_layers_and_looks_down_only(path: Path) -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert path.stem in level, "a new module of the core: say in LAYERS where it belongs"
    below = {name for name, number in level.items() if number < level[path.stem]}
    inside = [entry for entry in imports(path) if entry.module.startswith("flyteauth._sansio.")]
    wrong = [entry for entry in inside if entry.module.rpartition(".")[2] not in below]
    assert wrong == []


@pytest.mark.req("CLK-08")
@pytest.mark.parametrize("path", CORE_MODULES, ids=lambda path: path.stem)
def test_the_core_reads_no_clock_and_waits_for_nothing(path: Path) -> None:
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    for node in ast.walk(tree(path)):
        assert not isinstance(node, waiting), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in IMPURE, f"{path.name}:{node.lineno} reads {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "__import__", "exec", "eval"}


# The rooms: who may look into which. What is not named here joins the rooms, as the session does.

PUBLIC: Final = ("errors", "events", "session")
MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "_sansio": ("_sansio",),
    "_io": ("_io", "_sansio", "errors", "events"),
    "errors": ("_sansio.errors",),
    "events": ("errors",),
    "remote": (*PUBLIC, "_default", "_procedures", "_api_keys"),
    "integrations": (*PUBLIC, "integrations"),
    # On purpose: these open connections of their own.
    "integrations.connect": (*PUBLIC, "integrations", "_connection"),
    "integrations.grpc": (*PUBLIC, "integrations", "_connection"),
    # On purpose: it hands a whole configuration over to another program.
    "integrations.flyte": (*PUBLIC, "integrations", "config", "_handover", "_own_command"),
    # On purpose: it asks over gRPC what a session asks over HTTP, and may have to wait for that.
    "integrations.flytekit": (*PUBLIC, "integrations", "_target", "_io.threads", "config"),
    # On purpose: it brings our commands to another command line.
    "integrations.flyte_cli": (*PUBLIC, "cli"),
    "cli": (*PUBLIC, "cli", "remote", "devserver"),
    # On purpose: the model uses the core's HTTP values.
    "devserver": (*PUBLIC, "devserver", "_sansio.http"),
    # On purpose: it needs no session where what is stored will do.
    "cli.token": (
        *PUBLIC,
        "cli",
        "config",
        "_stored",
        "_sansio.record",
        "_sansio.renewal",
        "_sansio.token",
    ),
    # On purpose: these look at configuration and stores, the first two by way of _doctor.
    "cli.doctor": (*PUBLIC, "cli", "_doctor"),
    "cli.status": (*PUBLIC, "cli", "_doctor"),
    "cli.accounts": (*PUBLIC, "cli", "config", "_doctor", "_stored", "_identity"),
    "cli.get": (*PUBLIC, "cli", "config", "remote"),
    "cli._logout_all": (*PUBLIC, "cli", "_leaving", "_io.wording"),
    # A write to a reader that has stopped reading must not stop a login.
    "cli._events": (*PUBLIC, "cli", "_io.threads"),
    # It writes the file that these read, and checks each value as they would.
    "cli.create_config": (
        *PUBLIC,
        "cli",
        "config",
        "_config_file",
        "_config_values",
        "_endpoint",
        "_io.presenter",
    ),
    "cli._for_tool": (*PUBLIC, "cli", "config", "_config_file", "_own_command"),
    "cli._rewriting": (*PUBLIC, "cli", "_io.folder", "_io.lock", "_io.names"),
    "cli.delete": (*PUBLIC, "cli", "remote", "_io.presenter"),
    # They say which other tools there are.
    **dict.fromkeys(
        ("cli.login", "cli.import_", "cli.export"),
        (*PUBLIC, "cli", "_sansio.keyring_layouts"),
    ),
    # They hand a whole configuration over to another program.
    "cli.exec_": (*PUBLIC, "cli", "config", "_handover"),
}


def allowed(importer: str) -> tuple[str, ...] | None:
    """What a module may import from the package: what is said of it, or of its room."""
    inside = importer.removeprefix("flyteauth.")
    rooms = [room for room in MAY_IMPORT if f"{inside}.".startswith(f"{room}.")]
    return MAY_IMPORT[max(rooms, key=len)] if rooms else None


@pytest.mark.parametrize("path", modules(ROOT), ids=module_name)
def test_every_room_looks_only_where_it_may(path: Path) -> None:
    targets = allowed(module_name(path))
    if targets is None:
        return
    wrong = [
        entry
        for entry in imports(path)
        if entry.module.startswith("flyteauth.")
        and not any(f"{entry.module}.".startswith(f"flyteauth.{name}.") for name in targets)
    ]
    assert wrong == []


@pytest.mark.req("RND-01")
def test_nobody_imports_a_generator_that_can_be_predicted() -> None:
    wrong = [entry for path in modules(ROOT) for entry in imports(path) if entry.module == "random"]
    assert wrong == []


LIBRARIES: Final = "h11 httpcore httpx keyring redis truststore webbrowser"


@pytest.mark.parametrize("library", LIBRARIES.split())
def test_libraries_that_do_io_stay_in_the_adapters(library: str) -> None:
    """Each integration also imports the library that it is for, and is named after."""
    wrong = [
        entry
        for path in modules(ROOT)
        if path.parent != ROOT / "_io"
        and path.parent != ROOT / "_io" / "store"
        and path != ROOT / "integrations" / f"{library}.py"
        for entry in imports(path)
        if f"{entry.module}.".startswith(f"{library}.")
    ]
    assert wrong == []
