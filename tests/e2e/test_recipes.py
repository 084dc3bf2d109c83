"""The recipes in the documents: every block runs as it stands, and does what is said of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyteauth.devserver.serve import Running, serving
from flyteauth.devserver.settings import Settings

from .conftest import Ended, Home

TEXT = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^```python (\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
PROJECTS = "/flyteidl2.project.ProjectService/ListProjects"
TASKS = "/flyteidl2.task.TaskService/ListTasks"

# What somebody else does with what a block has defined.
USE = {
    "fastapi": """
from starlette.testclient import TestClient

with TestClient(app) as browser:
    for _ in range(2):
        answer = browser.get("/projects")
        print(answer.status_code, answer.json())
""",
}
# How a notebook runs a cell: within its own running event loop.
CELL = """
import ast, asyncio, inspect

async def kernel():
    code = compile({block!r}, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, {{}})
    if inspect.isawaitable(waiting):
        await waiting
    import flyteauth
    await flyteauth.current_session().aclose()

asyncio.run(kernel())
"""


@pytest.fixture
def plane() -> Iterator[Running]:
    with serving(Settings(approve="auto")) as running:
        yield running


def run(home: Home, running: Running, name: str, **environ: str) -> Ended:
    block = RECIPES[name].replace("https://flyte.example.com/", f"{running.base_url}/")
    block = block.replace('"https://flyte.example.com"', f'"{running.base_url}"')
    program = CELL.format(block=block) if name == "notebook" else block + USE.get(name, "")
    environ = {"FLYTE_API_KEY": running.api_key, **environ}
    ended = home.program([sys.executable, "-c", program], environ)
    assert (ended.status, ended.err) == (0, ""), ended
    return ended


def test_every_block_is_one_that_is_run() -> None:
    assert list(RECIPES) == [
        "fastapi",
        "trio",
        "aiohttp",
        "requests",
        "connect",
        "threads",
        "notebook",
        "origins",
    ]
    assert TEXT.count("```") == 2 * len(RECIPES)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("fastapi", {PROJECTS: 2}),
        ("trio", {TASKS: 3}),
        ("aiohttp", {PROJECTS: 1}),
        ("requests", {PROJECTS: 1}),
        ("connect", {PROJECTS: 1}),
        ("threads", {TASKS: 3}),
        ("notebook", {PROJECTS: 2}),
    ],
)
def test_a_recipe_lists_what_there_is_with_one_token(
    home: Home, plane: Running, name: str, calls: dict[str, int]
) -> None:
    ended = run(home, plane, name)
    said = ("flytesnacks" if PROJECTS in calls else "development") in ended.out
    assert said, ended
    for path, count in calls.items():
        made = [entry for entry in plane.plane.journal if entry.path == path]
        assert [entry.status for entry in made] == [200] * count
    assert plane.plane.count(path="/oauth2/token") == (2 if name == "notebook" else 1)


def test_where_credentials_go_can_be_asked(home: Home, plane: Running) -> None:
    assert run(home, plane, "origins").out.split() == ["True", "False"]
    (me,) = [entry for entry in plane.plane.journal if entry.path == "/me"]
    assert me.status == 200


def test_a_service_without_a_login_says_so_to_its_callers(home: Home, plane: Running) -> None:
    home.write(".flyte/config.yaml", f"admin:\n  endpoint: {plane.base_url}\n")
    ended = run(home, plane, "fastapi", FLYTE_API_KEY="")
    assert ended.out.count("503") == 2
    assert "flyteauth login" in ended.out
    assert plane.plane.count(path=PROJECTS) == 0
