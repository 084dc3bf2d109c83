"""A command with a stored login, as a whole process: what does it cost to start?"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ...processes import Usage, processes
from ...server import Server, serving
from ..comparison import Column, Comparison, Figure, first, turns
from ..environments import OURS, Environment
from ..peer import Peer, environ, login_at

ROUNDS: Final = 15
# What comes by a login that is stored; the rest is only to be known.
READERS: Final = (OURS, "flyte whoami", "keyring, one password", "flytekit, its keyring store")
JSON_FLOOR: Final = "import json; json.load(open({path!r}))"
KEYRING: Final = "import keyring; keyring.get_password({service!r}, 'tokens')"
FLYTEKIT: Final = (
    "from flytekit.clients.auth.keyring import KeyringStore; KeyringStore.retrieve({service!r})"
)


def rows(found: list[Environment], *, quick: bool) -> Iterator[Comparison]:
    with (
        serving() as server,
        tempfile.TemporaryDirectory(prefix="flyteauth-bench-") as directory,
        processes() as launched,
    ):
        home = Path(directory)
        variables = {**environ(home), "SSL_CERT_FILE": server.ca_file}
        commands = _commands({each.name: each for each in found}, server, home)
        measured: dict[str, list[tuple[Usage, Usage]]] = {label: [] for label in commands}
        for index in range(-1, 3 if quick else ROUNDS):
            for label in turns(list(commands), index):
                bare = launched.use([sys.executable, "-c", "pass"], variables, home)
                used = launched.use(commands[label], variables, home)
                if index >= 0:  # before that, byte code is written
                    measured[label].append((bare, used))
    figures: dict[str, dict[str, Figure]] = {
        label: {
            "wall": [1000 * used.seconds for _, used in pairs],
            "times bare": [used.seconds / bare.seconds for bare, used in pairs],
            "peak memory": [used.peak_mb for _, used in pairs],
        }
        for label, pairs in measured.items()
    }
    readers = {name: each for name, each in figures.items() if name in READERS}
    yield Comparison(
        "commands",
        "commands with a stored login, whole processes",
        [Column("wall", "ms", decides=True), Column("times bare"), Column("peak memory", "MB")],
        figures,
        first(readers, "wall"),
        [f"{OURS} is flyteauth token; flyte whoami makes one call over TLS, which has to be made"],
    )


def _commands(found: dict[str, Environment], server: Server, home: Path) -> dict[str, list[str]]:
    order: dict[str, Any] = login_at(server)
    commands: dict[str, list[str]] = {}
    if ours := found.get(OURS):
        with Peer(ours, home) as peer:
            peer.tell("keep", **order)
        config = home / "config.yaml"
        config.write_text(
            f"admin:\n  endpoint: {server.base_url}\n  tokenStore: file\n", encoding="utf-8"
        )
        where = ["--config", str(config)]
        commands[OURS] = [ours.script("flyteauth"), "token", *where]
        commands["flyteauth status"] = [ours.script("flyteauth"), "status", *where]
        commands["flyteauth --help"] = [ours.script("flyteauth"), "--help"]
    if flyte := found.get("flyte"):
        with Peer(flyte, home) as peer:
            peer.tell("keep", **{**order, "endpoint": server.tls_url})
        where = ["--endpoint", server.tls_url.replace("https://", "dns:///")]
        service = server.tls_url.removeprefix("https://")
        python = str(flyte.python)
        commands["flyte whoami"] = [flyte.script("flyte"), *where, "whoami"]
        commands["flyte --version"] = [flyte.script("flyte"), "--version"]
        commands["flyte --help"] = [flyte.script("flyte"), "--help"]
        commands["keyring, one password"] = [python, "-c", KEYRING.format(service=service)]
    if flytekit := found.get("flytekit"):
        service = server.tls_url.removeprefix("https://")
        python = str(flytekit.python)
        commands["flytekit, its keyring store"] = [python, "-c", FLYTEKIT.format(service=service)]
    (home / "token.json").write_text('{"access_token": "a"}', encoding="utf-8")
    floor = JSON_FLOOR.format(path=str(home / "token.json"))
    commands["a JSON file with json (floor)"] = [sys.executable, "-c", floor]
    return commands
