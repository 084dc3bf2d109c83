"""``flyteauth completion``: the shell's side of completing our commands."""

from __future__ import annotations

import argparse
import sys
from typing import Final

SHELLS: Final = {
    "bash": """eval "$(flyteauth completion bash)"                in ~/.bashrc""",
    "zsh": """eval "$(flyteauth completion zsh)"                 in ~/.zshrc, after compinit""",
    "fish": """flyteauth completion fish | source                 in ~/.config/fish/config.fish""",
}
EPILOG: Final = "to have it in every new shell, write\n" + "".join(
    f"  {line}\n" for line in SHELLS.values()
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=list(SHELLS), help="the shell that it is for")


def main(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["flyteauth"], shell=options.shell))
    return 0
