"""The command line that goes on where this one has stopped."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Final

# What says which login it is, and how its server is reached.
_SAME_LOGIN: Final = {
    "config": "--config",
    "endpoint": "--endpoint",
    "account": "--account",
    "auth_type": "--auth-type",
    "ca_cert": "--ca-cert",
}


# Unless the session says which login it is.
_LOGIN: Final = re.compile(
    r"\bflyteauth login\b(?!(?: --(?:no-wait|resume))? --(?!no-wait|resume))"
)
_ARGUMENT: Final = re.compile(r"^argument (\w+)")
# What a program passes, and how the same is said here.
_SAID_HERE: Final = {
    "pass endpoint=": "pass --endpoint, or set admin.endpoint",
    "the argument endpoint": "the option --endpoint",
    ", or pass client_id=": "",  # for which there is the setting, and no option
}


def in_words_of(options: argparse.Namespace | None, text: str) -> str:
    """*text*, a message of the session, as whoever typed *options* would say it."""
    from ..errors import escape

    login = escape(shlex.join(again(options or argparse.Namespace(), "login")))
    text = _LOGIN.sub(lambda _: login, text)
    for passed, said in _SAID_HERE.items():
        text = text.replace(passed, said)
    return _ARGUMENT.sub(lambda match: f"argument --{_flag(match[1])}", text)


def _flag(name: str) -> str:
    return {"ca_cert_file_path": "ca-cert"}.get(name, name.replace("_", "-"))


def again(options: argparse.Namespace, *command: str) -> list[str]:
    """``flyteauth`` *command* for the login that *options* mean, as words for a shell."""
    words = ["flyteauth", *command]
    for name, flag in _SAME_LOGIN.items():
        if (value := getattr(options, name, None)) is not None:
            words += [flag, str(value)]
    for scope in getattr(options, "scopes", None) or ():
        words += ["--scopes", scope]
    for tool in getattr(options, "share", None) or ():
        words += ["--share", tool]
    for name in ("insecure", "headless"):
        words += [f"--{name}"] if getattr(options, name, None) else []
    return words
