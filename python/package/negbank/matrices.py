"""Float columns from whatever holds floats, as contiguous float32; an array that is one already is not copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument


def floats(values: Any, parameter: str) -> npt.NDArray[np.float32]:
    """`values` as contiguous float32, of their own shape."""
    try:
        array = np.asarray(values)
    except ValueError as fault:
        raise InvalidArgument.of(parameter, f"is no array: {fault}") from fault
    # An array of integers where embeddings are due holds something else (token ids, say); a literal [[1, 0], [0, 1]] doesn't.
    kinds = "f" if hasattr(values, "dtype") else "fiu"
    if array.dtype.kind not in kinds:
        raise InvalidArgument.of(parameter, f"must be floats, got {array.dtype}; convert with .astype(numpy.float32)")
    array = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(array) if array.ndim else array


def matrix(values: Any, dim: int, parameter: str) -> npt.NDArray[np.float32]:
    """As `floats`, [rows, dim]."""
    array = floats(values, parameter)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidArgument.of(parameter, f"must have shape [rows, {dim}] as the bank does, got {list(array.shape)}")
    return array
