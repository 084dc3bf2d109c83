"""
Frozen values without attrs: those that stand between ``flyteauth token`` and a stored token.

Importing attrs takes that command longer than all the rest of its work, and each class that attrs
makes takes as long as reading a login. Whatever else is a value is one of attrs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Value:
    """Fields are the annotations of a class, with what is assigned there as defaults.

    ``hidden`` fields are not in the repr, ``uncompared`` ones make no difference to equality.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _shown: ClassVar[tuple[str, ...]] = ()
    _compared: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls, *, hidden: tuple[str, ...] = (), uncompared: tuple[str, ...] = ()
    ) -> None:
        names = tuple(cls.__annotations__)
        type.__setattr__(cls, "__match_args__", names)  # type checkers think it final
        cls._shown = tuple(name for name in names if name not in hidden)
        cls._compared = tuple(name for name in names if name not in uncompared)

    def __init__(self, *positional: Any, **named: Any) -> None:
        kind, members = type(self), dict(zip(self.__match_args__, positional, strict=False))
        doubled, unknown = members.keys() & named, named.keys() - set(kind.__match_args__)
        for name in kind.__match_args__:
            if name not in members:
                members[name] = named[name] if name in named else getattr(kind, name, kind)
        missing = [name for name, value in members.items() if value is kind]
        if missing or unknown or doubled or len(positional) > len(members):
            raise TypeError(f"{kind.__name__} takes {', '.join(kind.__match_args__)}")
        vars(self).update(members)

    def replace(self, **changes: Any) -> Self:
        """The same with *changes*."""
        return type(self)(**{**vars(self), **changes})

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Value) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return type(self), *(getattr(self, name) for name in self._compared)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")
