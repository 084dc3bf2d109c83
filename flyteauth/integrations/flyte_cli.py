"""
Our commands in flyte's own command line, which finds them by entry points
(``flyte.plugins.cli.commands``)::

    flyte login                          flyte --endpoint flyte.example.com login --headless
    flyte logout                         flyte auth status --explain

They are those of ``flyteauth``, with its options. What stands before them on flyte's command line,
its ``--endpoint``, ``--config``, ``--auth-type``, ``--insecure`` and ``--output-format``, means
here what it means there; what stands after them goes before it.

flyte itself uses the login where its configuration says so (``flyteauth create config --for
flyte``), or in ``flyteauth exec -- flyte …``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from ..cli._parser import COMMANDS, actions_of

if TYPE_CHECKING:
    from click import Command, Group
else:
    try:  # flyte's help is made with it, and so is ours there
        from rich_click import RichCommand as Command, RichGroup as Group
    except ImportError:
        from click import Command, Group

__all__ = ["auth", "login", "logout"]

_IN_AUTH: Final = (
    "status",
    "token",
    "whoami",
    "accounts",
    "doctor",
    "login",
    "logout",
    "import",
    "export",
)


class _Ours(Command):
    """One of our commands; its options are looked up when somebody asks for them."""

    def __init__(self, name: str) -> None:
        summary = COMMANDS[name]
        super().__init__(name, help=f"{summary[0].upper()}{summary[1:]}.")

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        self.params = self.params or [_option(action) for action in actions_of(str(self.name))]
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> None:
        from ..cli import main

        given = dict(_given(ctx))
        if "--headless" in given:  # it says an --auth-type
            given.setdefault("--auth-type", [])
        if "--check" in given:  # it prints nothing, in no format
            given.setdefault("--json", [])
        before = {k: v for k, v in _before(ctx).items() if k not in given and self._has(ctx, k)}
        words = [word for said in (before, given) for pair in said.values() for word in pair]
        ctx.exit(main([str(self.name), *words]))

    def _has(self, ctx: click.Context, option: str) -> bool:
        return any(option in parameter.opts for parameter in self.get_params(ctx))


def _option(action: argparse.Action) -> click.Option:
    """The same option for click; what goes together is checked where it is used."""
    is_flag = action.nargs == 0
    metavar = action.metavar or f"[{'|'.join(map(str, action.choices or ()))}]"
    return click.Option(
        [*action.option_strings, action.dest],
        is_flag=is_flag,
        multiple=action.default is None and type(action).__name__ == "_AppendAction",
        metavar=None if is_flag else str(metavar),
        help=action.help,
    )


def _given(ctx: click.Context) -> Iterator[tuple[str, list[str]]]:
    """What stands after our command, by the option's name, as words."""
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        name = parameter.opts[0]
        if value is True:
            yield name, [name]
        elif isinstance(value, tuple):
            if value:
                yield name, [word for each in value for word in (name, each)]
        elif value not in {None, False}:
            yield name, [name, value]


def _before(ctx: click.Context) -> dict[str, list[str]]:
    """What stands before it, and is flyte's, in our words."""
    theirs: Any = ctx.find_root().params
    words: dict[str, list[str]] = {}
    if theirs.get("config_file"):
        words["--config"] = ["--config", theirs["config_file"]]
    if theirs.get("endpoint"):
        # flyte speaks TLS to http://, too, unless it is told to be insecure.
        endpoint = str(theirs["endpoint"]).removeprefix("http://")
        words["--endpoint"] = ["--endpoint", endpoint]
    if theirs.get("auth_type"):
        words["--auth-type"] = ["--auth-type", theirs["auth_type"]]
    if theirs.get("insecure"):
        words["--insecure"] = ["--insecure"]
    if str(theirs.get("output_format")).startswith("json"):
        words["--json"] = ["--json"]
    return words


login: Final = _Ours("login")
logout: Final = _Ours("logout")
auth: Final = Group(
    "auth",
    commands=[_Ours(name) for name in _IN_AUTH],
    help="Say how you are logged in, find out what keeps you from it, and share it with tools.",
)
