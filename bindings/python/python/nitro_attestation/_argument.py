"""Arguments of the wrong type."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def must_be(kind: type[T], value: T, name: str) -> T:
    """The value, or a :class:`TypeError` that says what it is instead."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__} and not {kind.__name__}")
    return value
