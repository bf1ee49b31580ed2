"""A GPU as NVIDIA's driver knows it (NVML, through nvidia-ml-py). The library is installed everywhere, the driver is not."""

from __future__ import annotations

from typing import Any


class NvmlError(RuntimeError):
    """The driver cannot be asked; the message says why."""


def gpu_by_uuid(uuid: str) -> tuple[Any, Any]:
    """The library, begun, and its handle of a GPU.

    Args:
        uuid: Of the GPU, as torch gives it, with `GPU-` or without.
    Raises:
        NvmlError: There is no driver, or it does not know the GPU.
    """
    try:
        import pynvml
    except ImportError:
        raise NvmlError("no NVML (pip install nvidia-ml-py)") from None
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID("GPU-" + uuid.removeprefix("GPU-"))
    except pynvml.NVMLError as error:
        raise NvmlError(f"NVML says {error}") from error
