"""The energy that GPUs have used, by the counter that each GPU keeps of itself (NVIDIA's from Volta on), read through NVML.

Source: NVIDIA, NVML API reference, nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from vidmae.runs.attempts import AttemptLog
from vidmae.runs.nodes.nvml import NvmlError, gpu_by_uuid

Sum = Callable[[Sequence[float]], list[float]]


class GpuCounter:
    """The energy counter of one GPU.

    Args:
        uuid: Of the GPU, as torch gives it.
    Raises:
        NvmlError: There is no driver, or it does not know the GPU.
    """

    def __init__(self, uuid: str) -> None:
        self._nvml, self._gpu = gpu_by_uuid(uuid)

    def joules(self) -> float:
        """What the counter says.

        Raises:
            NvmlError: The GPU keeps no counter.
        """
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)) / 1000
        except self._nvml.NVMLError as error:
            raise NvmlError(f"NVML says {error}") from error


class EnergyMeter:
    """What the GPUs of a job have used since it was made: every rank reads the counter of its own GPU.

    Args:
        uuid: Of this rank's GPU; empty on a CPU, where nothing is measured and no rank waits for another.
        ranks: How many there are.
        say: Told, once, why the energy is not measured.
    """

    def __init__(self, uuid: str, ranks: int, say: Callable[[str], None]) -> None:
        self._on_gpu, self._ranks, self._say = bool(uuid), ranks, say
        self._began, self._why, self._counter, self._first_j = time.time(), "", None, 0.0
        try:
            self._counter = GpuCounter(uuid) if uuid else None
            self._first_j = self._counter.joules() if self._counter else 0.0
        except NvmlError as error:
            self._why, self._counter = str(error), None

    def note(self, sum_over_ranks: Sum, log: AttemptLog | None) -> None:
        """Write down what was used so far. Collective where there are GPUs.

        Args:
            sum_over_ranks: `Ranks.sum`.
            log: Account of this attempt, on rank 0.
        """
        if not self._on_gpu:
            return
        used_j = 0.0
        try:
            used_j = self._counter.joules() - self._first_j if self._counter else 0.0
        except NvmlError as error:
            self._why, self._counter = str(error), None
        whole_j, readable = sum_over_ranks([used_j, float(self._counter is not None)])
        if round(readable) < self._ranks:
            if log is not None:
                self._say(f"the energy of {self._ranks - round(readable)} of {self._ranks} GPUs is not measured"
                          + (f": {self._why}" if self._why else ""))
            self._on_gpu = False  # the same on every rank: all know the sum
        elif log is not None:
            log.used(whole_j, time.time() - self._began)
