"""What the driver says of a GPU (NVML): health counters, other processes, errors while it is loaded.

Where nothing can be asked, that is said and noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from vidmae.ranks.health.node_facts import GpuFacts
from vidmae.runs.nodes.nvml import NvmlError, gpu_by_uuid

T = TypeVar("T")
DRIVER = Path("/sys/module/nvidia/version")
LITTLE_GIB = 0.1  # a display or a monitor holds a few MiB: no other job
XID_WAIT_MS = 50
MOST_XIDS = 16
HELD_DOWN = {0x8: "hardware slowdown", 0x40: "too hot", 0x80: "power brake"}  # bits of nvmlClocksThrottleReason*


class Nvml:
    """Watches one GPU from its beginning until `read`.

    Args:
        uuid: Of the GPU, as torch gives it.
    Attributes:
        missing: Why nothing can be asked; empty where it can.
    """

    def __init__(self, uuid: str) -> None:
        self.missing = ""
        self._events: Any = None
        try:
            self._nvml, self._gpu = gpu_by_uuid(uuid)
        except NvmlError as error:
            self.missing = f"not checked: {error}"
            return
        self._events = self._ask(self._watch)

    def _watch(self) -> Any:
        nvml = self._nvml
        events = nvml.nvmlEventSetCreate()
        nvml.nvmlDeviceRegisterEvents(self._gpu, nvml.nvmlEventTypeXidCriticalError, events)
        return events

    def _ask(self, question: Callable[..., T], *words: Any) -> T | None:
        """The answer, or None where this GPU or driver has none."""
        try:
            return question(*words)
        except self._nvml.NVMLError:
            return None

    def read(self, facts: GpuFacts) -> GpuFacts:
        """The facts with what the driver says, after the GPU was loaded. Only once."""
        if self.missing:
            return replace(facts, nvml=self.missing)
        nvml, gpu, ask = self._nvml, self._gpu, self._ask
        rows = ask(nvml.nvmlDeviceGetRemappedRows, gpu)  # corrected, uncorrected, pending, failed
        not_corrected = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        slowed = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu) or 0
        found = replace(
            facts, others=self._others(),
            ecc_errors=ask(nvml.nvmlDeviceGetTotalEccErrors, gpu, *not_corrected),
            rows="" if rows is None else "failed" if rows[3] else "pending" if rows[2] else "", xids=self._xids(),
            slowed=tuple(name for bit, name in HELD_DOWN.items() if slowed & bit),
            pcie_lanes=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, gpu), nvlinks=self._nvlinks(),
            temperature_c=ask(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU))
        if self._events is not None:
            ask(nvml.nvmlEventSetFree, self._events)
        ask(nvml.nvmlShutdown)
        return found

    def _others(self) -> int | None:
        """Processes beside this one; None where they cannot be told apart: a container has process ids of its own."""
        there = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._gpu)
        if there is None or os.getpid() not in [each.pid for each in there]:
            return None
        large = [each for each in there if (each.usedGpuMemory or 0) > LITTLE_GIB * 2**30]
        return len([each for each in large if each.pid != os.getpid()])

    def _xids(self) -> tuple[int, ...]:
        found: list[int] = []
        while self._events is not None and len(found) < MOST_XIDS:
            event = self._ask(self._nvml.nvmlEventSetWait_v2, self._events, XID_WAIT_MS)
            if event is None:  # nothing more within the time
                break
            found.append(int(event.eventData))
        return tuple(found)

    def _nvlinks(self) -> int | None:
        states = [self._ask(self._nvml.nvmlDeviceGetNvLinkState, self._gpu, link)
                  for link in range(getattr(self._nvml, "NVML_NVLINK_MAX_LINKS", 0))]
        known = [state for state in states if state is not None]
        return sum(known) if known else None


def driver_version(where: Path = DRIVER) -> str:
    """Version of NVIDIA's driver on this node, also without NVML; empty where there is none."""
    try:
        return where.read_text().strip()
    except OSError:
        return ""
