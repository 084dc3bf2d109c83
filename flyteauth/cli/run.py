"""``flyteauth run …``: the same as ``flyteauth exec -- flyte run …``."""

from __future__ import annotations

import argparse

from .exec_ import add_words, run_flyte


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_words(parser, "run")


def main(options: argparse.Namespace) -> int:
    return run_flyte(options, "run")
