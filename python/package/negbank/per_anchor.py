"""Lists that differ from anchor to anchor: positives and denylists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument

Scalar = TypeVar("Scalar", np.uint64, np.float32)


@dataclass(frozen=True)
class PerAnchor(Generic[Scalar]):
    """`values`, the anchors' one after the other; `counts` u32 [B] of them."""

    values: npt.NDArray[Scalar]
    counts: npt.NDArray[np.uint32]


def per_anchor(
    values: Any, anchors: int, convert: Callable[[Any, str], npt.NDArray[Scalar]], parameter: str
) -> PerAnchor[Scalar] | None:
    """Lists for `anchors` anchors from an array [B] (one each) or [B, P], or from B sequences of any lengths."""
    if values is None:
        return None
    if isinstance(values, (list, tuple)) and any(np.ndim(one) > 0 for one in values if one is not None):
        return _ragged(values, anchors, convert, parameter)
    array = convert(values, parameter)
    if array.ndim not in (1, 2) or array.shape[0] != anchors:
        wanted = f"must have shape [{anchors}] or [{anchors}, P], or be {anchors} lists, one an anchor"
        raise InvalidArgument.of(parameter, f"{wanted}; got {list(array.shape)}")
    each = array.shape[1] if array.ndim == 2 else 1
    return PerAnchor(array.reshape(-1), np.full(anchors, each, dtype=np.uint32))


def _ragged(
    values: list[Any] | tuple[Any, ...],
    anchors: int,
    convert: Callable[[Any, str], npt.NDArray[Scalar]],
    parameter: str,
) -> PerAnchor[Scalar]:
    if len(values) != anchors:
        raise InvalidArgument.of(parameter, f"has {len(values)} lists for {anchors} anchors")
    parts = [convert([] if part is None else part, f"{parameter}[{at}]").reshape(-1) for at, part in enumerate(values)]
    return PerAnchor(np.concatenate(parts), np.array([part.size for part in parts], dtype=np.uint32))
