"""Floats from whatever holds floats; an array of a dtype that can be sent is not copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument
from .requests import FloatMatrix
from .tensors import host_array, is_tensor, stacked


def floats(values: Any, parameter: str) -> npt.NDArray[np.float32]:
    """`values` as contiguous float32, of their own shape."""
    array, dtype = _halves_or_floats(values, parameter)
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    array = array.astype(np.float32, copy=False)
    return np.ascontiguousarray(array) if array.ndim else array


def vector(values: Any, parameter: str) -> npt.NDArray[np.float32]:
    """As `floats`, one-dimensional."""
    array = floats(values, parameter)
    if array.ndim != 1:
        raise InvalidArgument.of(parameter, f"must be one-dimensional, got shape {list(array.shape)}")
    return array


def matrix(values: Any, dim: int, parameter: str) -> FloatMatrix:
    """Rows of `dim` floats: float16 and bfloat16 as they are, anything else as float32."""
    array, dtype = _halves_or_floats(values, parameter)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidArgument.of(parameter, f"must have shape [rows, {dim}] as the bank does, got {list(array.shape)}")
    return _matrix(array, dtype)


def views(values: Any, dim: int, parameter: str) -> tuple[FloatMatrix, int]:
    """As `matrix`, of [rows, V, dim] too, whose rows are then rows x V; and V."""
    array, dtype = _halves_or_floats(values, parameter)
    if array.ndim not in (2, 3) or array.shape[-1] != dim or array.shape[-2] == 0:
        wanted = f"must have shape [rows, {dim}] as the bank does, or [rows, views, {dim}]"
        raise InvalidArgument.of(parameter, f"{wanted}, got {list(array.shape)}")
    return _matrix(array.reshape(-1, dim), dtype), array.shape[1] if array.ndim == 3 else 1


def matrix_of_any_width(values: Any, parameter: str) -> FloatMatrix:
    """As `matrix`, of at least one column."""
    array, dtype = _halves_or_floats(values, parameter)
    if array.ndim != 2 or array.shape[1] == 0:
        raise InvalidArgument.of(parameter, f"must have shape [rows, d], got {list(array.shape)}")
    return _matrix(array, dtype)


def _matrix(array: npt.NDArray[Any], dtype: str) -> FloatMatrix:
    if dtype not in ("float16", "bfloat16"):
        array, dtype = array.astype(np.float32, copy=False), "float32"
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return FloatMatrix(data=data, rows=array.shape[0], dim=array.shape[1], dtype=dtype)


def _halves_or_floats(values: Any, parameter: str) -> tuple[npt.NDArray[Any], str]:
    """An array of floats, and the name of its dtype; bfloat16 as its bits, uint16."""
    values = stacked(values, parameter)
    if is_tensor(values):
        array, dtype = host_array(values, parameter)
        if array.dtype.kind != "f" and dtype != "bfloat16":
            raise InvalidArgument.of(parameter, f"must be floats, got {values.dtype}; convert with .float()")
        return array, dtype
    try:
        array = np.asarray(values)
    except ValueError as fault:
        raise InvalidArgument.of(parameter, f"is no array: {fault}") from fault
    if array.dtype.name == "bfloat16":
        return array.view(np.uint16), "bfloat16"
    # An array of integers where embeddings are due holds something else (token ids, say); a literal [[1, 0], [0, 1]] doesn't.
    kinds = "f" if hasattr(values, "dtype") else "fiu"
    if array.dtype.kind not in kinds:
        raise InvalidArgument.of(parameter, f"must be floats, got {array.dtype}; convert with .astype(numpy.float32)")
    # A view of the other byte order holds other numbers once it is bytes.
    return array.astype(array.dtype.newbyteorder("="), copy=False), array.dtype.name
