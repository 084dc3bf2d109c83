"""Every command and every option, from the parser of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from flyteauth.cli._parser import parser
from flyteauth.cli._session import add_arguments
from flyteauth.devserver.settings import FAULTS


def everywhere() -> str:
    """The table of the options that stand before a command, or after most of them."""
    made = argparse.ArgumentParser(add_help=False)
    add_arguments(made)
    return "\n".join(_table(made._actions))


def reference() -> str:
    """A section for each command, in the order of ``--help``."""
    return "\n".join(_sections(parser(None), "")).strip()


def faults() -> str:
    """What the embedded control plane can get wrong."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in FAULTS.items()]
    return "\n".join(["| fault | |", "|---|---|", *rows])


def _sections(of: argparse.ArgumentParser, prefix: str) -> Iterator[str]:
    for name, (command, aliases) in _commands(of).items():
        words = f"{prefix}{name}"
        below = _commands(command)
        if not below:
            yield from _section(words, command, aliases)
        yield from _sections(command, f"{words} ")


def _section(words: str, command: argparse.ArgumentParser, aliases: list[str]) -> Iterator[str]:
    takes = " ".join(_usage(action) for action in command._actions if not action.option_strings)
    yield f"### {words}"
    yield ""
    also = f" (`{'`, `'.join(aliases)}` does as well)" if aliases else ""
    yield f"`flyteauth {words}{takes and f' {takes}'}`: {_started(command.description or '')}{also}"
    yield ""
    own = _own(command)
    if own:
        yield from _table(own)
        yield ""
    if command.epilog:
        yield "```text"
        yield command.epilog.strip("\n")
        yield "```"
        yield ""


def _started(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}".rstrip(".") + "."


def _commands(
    of: argparse.ArgumentParser,
) -> dict[str, tuple[argparse.ArgumentParser, list[str]]]:
    """The commands below one, with their other names."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            names: dict[int, list[str]] = {}
            for name, command in action.choices.items():
                names.setdefault(id(command), []).append(name)
            return {first: (action.choices[first], others) for first, *others in names.values()}
    return {}


def _own(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """What a command has beside help and the options that most have."""
    made = argparse.ArgumentParser()
    add_arguments(made)
    shared = {tuple(action.option_strings) for action in made._actions}
    return [
        action
        for action in command._actions
        if tuple(action.option_strings) not in shared and action.help != argparse.SUPPRESS
    ]


def _usage(action: argparse.Action) -> str:
    return f"[{_metavar(action)}]" if action.nargs == argparse.OPTIONAL else _metavar(action)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return f"{action.dest.upper()}{' …' if action.nargs == argparse.REMAINDER else ''}"


def _table(actions: list[argparse.Action]) -> Iterator[str]:
    yield "| option | |"
    yield "|---|---|"
    for action in actions:
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{_metavar(action)}`"
        if action.option_strings and action.nargs != 0:
            names = f"{names[:-1]} {_metavar(action)}`"
        said = ((action.help or "") % vars(action)).replace("|", "\\|")
        yield f"| {names.replace('|', chr(92) + '|')} | {said} |"
