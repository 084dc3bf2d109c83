"""What can be said on the command line. Only the module of what was said is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

from . import _session

COMMANDS: Final = {
    "login": "log in, and keep the login on this machine",
    "logout": "forget the login, and have its tokens revoked",
    "status": "say whether you are logged in, as whom, and why so",
    "whoami": "ask the control plane who you are",
    "import": "take over the login of flyte, flytekit or flytectl",
    "export": "write the login for flyte, flytekit or flytectl",
    "accounts": "list the logins that are kept on this machine",
    "token": "print an access token that is good now",
    "doctor": "find out what keeps you from logging in",
    "create": "create a configuration file, a login or an API key",
    "get": "list projects, tasks, apps or API keys",
    "delete": "delete an API key",
    "exec": "run a Flyte tool with your login",
    "run": "the same as exec -- flyte run",
    "deploy": "the same as exec -- flyte deploy",
    "completion": "print a script that completes commands in your shell",
    "devserver": "run an embedded control plane",
    "demo": "log in to an embedded control plane in every way there is",
}
_MODULES: Final = {"exec": "exec_", "import": "import_"}  # these are words of Python's
EPILOG: Final = """\
A first login:
  flyteauth create config --endpoint https://flyte.example.com
  flyteauth login

Exit status: 0 done, 1 failed, 2 usage, 3 needs a person, 4 not logged in.
"""


class Parser(argparse.ArgumentParser):
    """Two lines say what is wrong with a command line, not a page."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        from ..errors import escape

        words = " ".join([self.prog, "[OPTION …]", *self._names()])
        usage = f"usage: {words}; help: {self.prog} --help"
        self.exit(2, f"{usage}\n{self.prog}: {escape(message)}\n")

    def _names(self) -> Iterator[str]:
        """What stands on the command line beside the options."""
        for action in self._get_positional_actions():
            choices = ",".join(map(str, action.choices or ()))
            name = action.metavar or (f"{{{choices}}}" if choices else action.dest.upper())
            if action.nargs == argparse.PARSER:
                yield f"{name} …"
            elif action.help != argparse.SUPPRESS:
                yield f"[{name}]" if action.nargs == argparse.OPTIONAL else str(name)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Exit for what is not known: the command that it was said to is the one to name it."""
        found, unknown = super().parse_known_args(args, namespace)
        name = next((word.partition("=")[0] for word in unknown if word.startswith("-")), "")
        if name:
            near = _near(name, self._option_string_actions)
            self.error(f"the option {name} is not known{f'; {near}' if near else ''}")
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """The same for a word that is not one of a few, with the word that may be meant."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        advice = _near(str(value), known) or f"choose from {', '.join(known)}"
        raise argparse.ArgumentError(action, f"{value!r} is not known; {advice}")

    def check_options(self, words: Sequence[str]) -> None:
        """Exit if an option before the command is none of ours: what follows it would be taken for
        the command.
        """
        for word in words:
            if word in COMMANDS or word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                advice = _near(name, self._option_string_actions) or "its place is after a command"
                self.error(f"the option {name} is not known here; {advice}")


def _near(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else ""


class _Version(argparse.Action):
    """Prints the version; looking it up is slow, and seldom asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"flyteauth {version('flyteauth')}")
        parser.exit()


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options that *words* say; ``run`` among them is the command's main.

    Exits with status 2, as argparse does, if they say nothing that can be understood.
    """
    ours = parser(words)
    if not words:
        ours.print_help(sys.stderr)
        ours.exit(2)
    ours.check_options(words)
    return ours.parse_args(words)


def parser(words: Sequence[str] | None = None) -> Parser:
    """The parser, with the options of the commands that are among *words*; None: of all."""
    top = Parser(
        prog="flyteauth",
        usage="flyteauth [OPTION …] COMMAND …",
        description="Authentication for Flyte and Union.",
        epilog=EPILOG,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    _session.add_arguments(top, default=None)
    commands = top.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="flyteauth"
    )
    for name, summary in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        command = commands.add_parser(name, help=summary, description=description)
        if words is None or name in words:
            module = import_module(f".{_MODULES.get(name, name)}", __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.main)
    return top


def actions_of(name: str) -> list[argparse.Action]:
    """The options of one command, for another command line that has it as well."""
    command = Parser(add_help=False)
    import_module(f".{_MODULES.get(name, name)}", __package__).add_arguments(command)
    return [action for action in command._actions if action.option_strings]  # noqa: SLF001  argparse has no other way


def complete() -> None:
    """Answer the shell, which asks what the command line in its environment can go on with, and
    exit. Neither a session is made nor anybody asked.
    """
    import os

    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(parser(words), always_complete_options=False)
