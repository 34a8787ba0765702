"""Single numbers from arguments, checked as far as the message's fields need it; ranges are the server's to judge."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from .errors import InvalidArgument


def whole(value: SupportsIndex, parameter: str, bits: int = 32) -> int:
    """A whole number of `bits` unsigned bits."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgument.of(parameter, f"must be a whole number, got {value!r}") from None
    if not 0 <= number < 1 << bits:
        raise InvalidArgument.of(parameter, f"must be in 0..2**{bits} - 1, got {number}")
    return number


def whole_or_none(value: SupportsIndex | None, parameter: str, bits: int = 32) -> int | None:
    """As `whole`; None stays None: the server's default."""
    return None if value is None else whole(value, parameter, bits)


def real_or_none(value: float | None, parameter: str) -> float | None:
    """A float; None stays None."""
    return None if value is None else real(value, parameter)


def real(value: float, parameter: str) -> float:
    """A float."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidArgument.of(parameter, f"must be a number, got {value!r}") from None


def tag_of(tag: str | SupportsIndex) -> str:
    """A checkpoint's tag: text, or a training step."""
    return tag if isinstance(tag, str) else str(whole(tag, "tag", 64))
