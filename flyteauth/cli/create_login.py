"""``flyteauth create login --host H``: the older spelling of ``flyteauth login --endpoint H``."""

from __future__ import annotations

import argparse

from . import login


def add_arguments(parser: argparse.ArgumentParser) -> None:
    login.add_arguments(parser)
    parser.add_argument(
        "--host",
        dest="endpoint",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="the control plane: the same as --endpoint",
    )


def main(options: argparse.Namespace) -> int:
    return login.main(options)
