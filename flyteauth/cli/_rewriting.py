"""A file of the user's that is written anew: in turn, all or nothing, and with the old one kept.

What is not ours to change in it stays as it was written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError, StoreError

if TYPE_CHECKING:
    import yaml

LOCK_WAIT: Final = 5.0  # seconds


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While no other process changes *path* like this; or not, where files cannot be locked."""
    from .._io.folder import home
    from .._io.lock import Locks
    from .._io.names import constant_length

    with ExitStack() as stack:
        try:
            locks = Locks(home() / "locks")
            stack.enter_context(locks.held(constant_length(f"config {path}"), LOCK_WAIT))
        except StoreError as error:
            if error.reason == "busy":
                raise
        yield


def dumped(document: dict[Any, Any], old: object = None, data: bytes = b"") -> bytes:
    """*document* as YAML. What it has in common with *old*, which *data* says, is written as it is
    there: ``yes``, ``010`` or ``12:30:45`` mean one thing to us, and to other tools another.
    """
    import yaml

    was = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader) if data else None
    node = _node(document, old, was)
    text: str = yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True)
    return text.encode()


def _node(new: object, old: object, was: yaml.Node | None) -> yaml.Node:
    import yaml

    if was is not None and new == old:
        return was
    if not (isinstance(new, dict) and isinstance(old, dict) and isinstance(was, yaml.MappingNode)):
        node: yaml.Node = yaml.SafeDumper(io.StringIO(), sort_keys=False).represent_data(new)
        return node
    there = {yaml.SafeLoader("").construct_document(key): (key, value) for key, value in was.value}
    pairs = []
    for name, value in new.items():
        key, before = there.get(name, (None, None))
        pairs.append((key or _node(name, None, None), _node(value, old.get(name), before)))
    return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=was.flow_style)


def keep(path: Path, data: bytes) -> Path:
    """The file beside *path* that holds *data*, as it was; made if there is none. What is kept
    already stays: the first one may be what the user has written by hand.
    """
    for number in count():
        kept = path.with_name(f"{path.name}.bak{f'.{number}' if number else ''}")
        if not os.path.lexists(kept):
            write(kept, data, like=path)
            return kept
        if _holds(kept, data):
            return kept
    raise AssertionError


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def write(path: Path, data: bytes, like: Path | None = None) -> None:
    """*data* at *path*, all of it or nothing, with the permissions of *like*. It holds no secret,
    so who may read a new file is for the umask to say.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if like is not None:
                draft.chmod(like.stat().st_mode & 0o777)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path}: the file cannot be written ({(error.strerror or 'unknown error').lower()}); "
            "correct the permissions, or name another file with --output",
            reason="config_file",
        ) from None
