"""Columns of ids, labels and groups from whatever holds whole numbers, never changing one on the way."""

from __future__ import annotations

import operator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument
from .tensors import host_array, is_tensor, stacked

Integer = TypeVar("Integer", np.uint64, np.int64)
Mask = npt.NDArray[np.uint8]


def integers(values: Any, dtype: type[Integer], parameter: str) -> npt.NDArray[Integer]:
    """`values` as a contiguous array of `dtype`, of their own shape; refuses what doesn't fit without loss."""
    array = _as_array(values, parameter)
    if array.dtype != dtype:
        if array.size == 0:
            array = array.astype(dtype)
        elif array.dtype.kind == "O":
            array = _from_objects(array, dtype, parameter)
        elif array.dtype.kind in "iu":
            _check_range(array, dtype, parameter)
            array = array.astype(dtype)
        else:
            raise InvalidArgument.of(parameter, f"must be whole numbers ({np.dtype(dtype)}), got {array.dtype}")
    # ascontiguousarray makes a vector of a scalar, and would hide that one was given.
    return np.ascontiguousarray(array) if array.ndim else array


def vector(values: Any, dtype: type[Integer], parameter: str) -> npt.NDArray[Integer]:
    """As `integers`, one-dimensional."""
    array = integers(values, dtype, parameter)
    if array.ndim != 1:
        raise InvalidArgument.of(parameter, f"must be one-dimensional, got shape {array.shape}")
    return array


def masked_vector(values: Any, dtype: type[Integer], parameter: str) -> tuple[npt.NDArray[Integer] | None, Mask | None]:
    """As `vector`, where a masked value or None means that the row has none: (values, 1 where there is one).

    No mask: every row has one. No values: the column is left out.
    """
    if values is None:
        return None, None
    missing: npt.NDArray[np.bool_] | None
    if isinstance(values, np.ma.MaskedArray):
        missing = np.ma.getmaskarray(values)
        values = np.ma.getdata(values).copy()
        values[missing] = 0
    else:
        values, missing = _without_none(values)
    column = vector(values, dtype, parameter)
    return column, None if missing is None else (~missing).astype(np.uint8)


def _without_none(values: Any) -> tuple[Any, npt.NDArray[np.bool_] | None]:
    """`values` with 0 for None, and where that was; `values` themselves where there is no None."""
    if is_tensor(values):
        return values, None
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind != "O":
        return values, None
    missing = np.array([value is None for value in array.flat], dtype=np.bool_).reshape(array.shape)
    if not missing.any():
        return values, None
    return np.where(missing, 0, array), missing


def _as_array(values: Any, parameter: str) -> npt.NDArray[Any]:
    values = stacked(values, parameter)
    if is_tensor(values):
        array, dtype = host_array(values, parameter)
        if dtype == "bfloat16":
            raise InvalidArgument.of(parameter, f"must be whole numbers, got {values.dtype}")
        return array
    try:
        array = np.asarray(values)
        # numpy makes floats, which can't hold them, of lists that mix small numbers with those above 2**63 - 1.
        if array.dtype.kind == "f" and array.size and not hasattr(values, "dtype"):
            array = np.asarray(values, dtype=object)
    except ValueError as fault:
        raise InvalidArgument.of(parameter, f"is no array: {fault}") from fault
    return array


def _from_objects(array: npt.NDArray[Any], dtype: type[Integer], parameter: str) -> npt.NDArray[Integer]:
    flat = np.empty(array.size, dtype=dtype)
    limits = np.iinfo(dtype)
    for at, value in enumerate(array.flat):
        try:
            number = operator.index(value)
        except TypeError:
            raise InvalidArgument.of(f"{parameter}[{at}]", f"must be a whole number, got {value!r}") from None
        if not limits.min <= number <= limits.max:
            raise InvalidArgument.of(f"{parameter}[{at}]", _out_of_range(number, dtype))
        flat[at] = number
    return flat.reshape(array.shape)


def _check_range(array: npt.NDArray[Any], dtype: type[Integer], parameter: str) -> None:
    limits = np.iinfo(dtype)
    if np.can_cast(array.dtype, dtype, casting="safe"):
        return
    outside = np.flatnonzero(array < 0 if array.dtype.kind == "i" else array > limits.max)
    if outside.size:
        raise InvalidArgument.of(f"{parameter}[{outside[0]}]", _out_of_range(int(array.flat[outside[0]]), dtype))


def _out_of_range(number: int, dtype: type[Integer]) -> str:
    limits = np.iinfo(dtype)
    return f"{number} is out of range: {np.dtype(dtype)} holds {limits.min} to {limits.max}"
