"""A configuration in two files: that of a tool that asks us for tokens, and how we log in then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .._config_file import absolute, same_key
from .._own_command import WITHOUT_TLS as WITHOUT_TLS, asked, asking, token_command  # noqa: PLC0414
from ..config import SETTINGS
from ..errors import ConfigError

# flyte and flytekit read the same keys, and let pass what they do not know; flytectl refuses that.
TOOLS: Final = ("flyte", "flytekit", "flytectl")

Document = dict[Any, Any]

_OURS: Final = frozenset(same_key(s.key) for s in SETTINGS if s.section == "admin")
_BOTH: Final = frozenset(
    map(same_key, "endpoint insecure insecureSkipVerify caCertFilePath httpProxyURL".split())
)
_ASKING: Final = frozenset(map(same_key, asking(())))
_NOT_FLYTECTL: Final = frozenset(("image", "task"))


def tool_of(document: Document) -> str | None:
    """The tool that asks us by *document*, if one does."""
    said = _said(document)
    if said.get("authtype") != "ExternalCommand" or _named(document) is None:
        return None
    return "flyte" if "disablekeyring" in said else "flytectl"


def ours_for(path: Path, document: Document) -> Path:
    """The file that says how to log in where *document*, at *path*, has its tool ask us: the one
    that it names, or else one beside it.
    """
    named = _named(document)
    return path.with_name(f"{path.stem}.flyteauth{path.suffix}") if named is None else named


def joined(tool: Document, ours: Document | None) -> Document:
    """The one configuration that the two come to; *tool* alone if nobody asks us yet."""
    if tool_of(tool) is None:
        return tool
    rest = {k: v for k, v in (tool.get("admin") or {}).items() if same_key(k) not in _ASKING}
    return {**tool, "admin": {**rest, **((ours or {}).get("admin") or {})}}


def divided(document: Document, name: str, ours: Path) -> tuple[Document, Document]:
    """What *ours* is to say, and what the tool of that *name* is to read, for *document* to be
    what they come to. Raises ConfigError where nothing could be asked for.
    """
    admin = document["admin"]
    if (who := _said(document).get("authtype")) in {"NoAuth", "Passthrough"}:
        raise ConfigError(
            f"argument --for: with authType {who} there is no token to ask for; leave out --for",
            reason="auth_type",
        )
    kept = {k: v for k, v in admin.items() if same_key(k) in _BOTH or same_key(k) not in _OURS}
    asks = asking(token_command(ours))
    if name == "flytectl":
        del asks["disableKeyring"]
        document = {k: v for k, v in document.items() if k not in _NOT_FLYTECTL}
    login = {k: v for k, v in admin.items() if same_key(k) in _OURS}
    return {"admin": login}, {**document, "admin": {**kept, **asks}}


def _said(document: Document) -> dict[str, Any]:
    return {same_key(key): value for key, value in (document.get("admin") or {}).items()}


def _named(document: Document) -> Path | None:
    """The file that a command of ours in *document* names."""
    command = _said(document).get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return None
    ours = asked(command)
    return None if ours is None or not ours.config else absolute(ours.config)
