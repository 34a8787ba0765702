"""torch tensors, in programs that use torch: this package never imports it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgument


def is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def stacked(values: Any, parameter: str) -> Any:
    """`values`; a list of tensors as one."""
    if not isinstance(values, (list, tuple)) or not values or not is_tensor(values[0]):
        return values
    try:
        return sys.modules["torch"].stack(list(values))
    except (RuntimeError, TypeError) as fault:
        raise InvalidArgument.of(parameter, f"is no array: {fault}") from fault


def host_array(tensor: Any, parameter: str) -> tuple[npt.NDArray[Any], str]:
    """A tensor's values, detached, contiguous and on the host, and the name of their dtype; bfloat16 as its bits, uint16."""
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized or tensor.is_complex():
        raise InvalidArgument.of(parameter, f"must be a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}")
    host = _moved(tensor.detach(), torch.device("cpu")).contiguous()
    if host.dtype == torch.bfloat16:
        return host.view(torch.int16).numpy().view(np.uint16), "bfloat16"
    return host.numpy(), str(host.numpy().dtype)


def tensor_of(array: npt.NDArray[Any], device: Any, *, bfloat16: bool = False) -> Any:
    """The array as a tensor on `device`; on the host it shares the array's memory. Unsigned integers become int64."""
    torch = sys.modules["torch"]
    if bfloat16:
        return _moved(torch.from_numpy(array.view(np.int16)).view(torch.bfloat16), device)
    if array.dtype == np.uint64:
        array = array.view(np.int64)
    elif array.dtype.kind == "u":
        array = array.astype(np.int64)
    if not array.flags.writeable:
        array = array.copy()
    return _moved(torch.from_numpy(array), device)


def _moved(tensor: Any, device: Any) -> Any:
    """The only place where values pass between a GPU and the host."""
    return tensor if tensor.device == device else tensor.to(device)
