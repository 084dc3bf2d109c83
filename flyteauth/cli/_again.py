"""The command line that goes on where this one has stopped."""

from __future__ import annotations

import argparse
from typing import Final

# What says which login it is, and how its server is reached.
_SAME_LOGIN: Final = {
    "config": "--config",
    "endpoint": "--endpoint",
    "account": "--account",
    "auth_type": "--auth-type",
    "ca_cert": "--ca-cert",
}


def again(options: argparse.Namespace, *command: str) -> list[str]:
    """``flyteauth`` *command* for the login that *options* mean, as words for a shell."""
    words = ["flyteauth", *command]
    for name, flag in _SAME_LOGIN.items():
        if (value := getattr(options, name, None)) is not None:
            words += [flag, str(value)]
    for scope in getattr(options, "scopes", None) or ():
        words += ["--scopes", scope]
    for name in ("insecure", "headless"):
        words += [f"--{name}"] if getattr(options, name, None) else []
    return words
