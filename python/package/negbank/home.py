"""Where the arrays of an answer go: to numpy, or to torch, as the question came."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .tensors import is_tensor, tensor_of

# numpy arrays or torch tensors. An annotation that named both would have to be narrowed at every use.
Array = Any


@dataclass(frozen=True)
class Home:
    """`device` is a torch device, or None for numpy arrays; `half` the dtype of the question where that is a half."""

    device: Any = None
    half: str | None = None

    @classmethod
    def of(cls, *values: Any) -> Home:
        """The home of the first tensor among the values; numpy without one."""
        for value in values:
            if is_tensor(value):
                name = str(value.dtype).removeprefix("torch.")
                return cls(value.device, name if name in ("float16", "bfloat16") else None)
        return cls()

    def array(self, array: npt.NDArray[Any]) -> Array:
        """Numbers or booleans. As tensors, unsigned ones become int64 (2**63 and more become negative)."""
        return array if self.device is None else tensor_of(array, self.device)

    def floats(self, array: npt.NDArray[Any]) -> Array:
        """Embeddings, where uint16 are the bits of bfloat16: ml_dtypes' in numpy where that is imported, else left so."""
        bits = array.dtype == np.uint16
        if self.device is not None:
            return tensor_of(array, self.device, bfloat16=bits)
        bfloat16 = getattr(sys.modules.get("ml_dtypes"), "bfloat16", None) if bits else None
        return array if bfloat16 is None else array.view(bfloat16)
