"""What a rank measures of itself and of its node: products, memory, GPU, folders, clock, versions.

Nothing random is drawn and no setting of torch is changed but the numerics that the run has anyway, so a run that was
checked has the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import vidmae
from vidmae.ranks.dist import Ranks
from vidmae.ranks.health import link_speed
from vidmae.ranks.health.folder_checks import FolderChecks
from vidmae.ranks.health.node_facts import GpuFacts, NodeFacts, RankFacts
from vidmae.ranks.health.nvml_reading import Nvml, driver_version

PRODUCT_S = {"cuda": 0.4, "cpu": 0.15}  # how long is computed: a core that has a quota is fast at first
MEMORY_S = {"cuda": 0.15, "cpu": 0.05}
SIDE = {"cuda": 8192, "cpu": 512}
COPIED = {"cuda": 2**29, "cpu": 2**25}  # bytes of one copy, more than caches hold


class FailingGpuError(RuntimeError):
    """The GPU of this rank fails. CUDA answers nothing any more in this process, so it can neither measure nor gather."""


@contextmanager
def _naming_a_failing_gpu(device: torch.device) -> Iterator[None]:
    """Around work on the device of this rank alone: what fails in a collective may be another rank's doing."""
    try:
        yield
    except torch.OutOfMemoryError:  # the GPU answers
        raise
    except RuntimeError as error:
        if device.type != "cuda":
            raise
        raise FailingGpuError(_in_a_line(error)) from error


def measure(ranks: Ranks, nodes: Sequence[str], folders: Callable[[], FolderChecks | None]) -> RankFacts:
    """Everything that this rank can say. Collective where the ranks are on several nodes or have GPUs.

    Args:
        ranks: All ranks.
        nodes: The node of each rank.
        folders: Begins to look at the folders of the node; None on all ranks of it but the first.
    Raises:
        FailingGpuError: The GPU of this rank fails.
    """
    device, several = ranks.device, len(set(nodes)) > 1
    time_s, looking = time.time(), folders()
    facts = RankFacts(ranks.rank, nodes[ranks.rank])
    compares = several or device.type == "cuda"
    with _naming_a_failing_gpu(device):
        gpu, nvml = _before(device)
    if compares:
        facts = _with_speeds(facts, device)
        facts = with_links(ranks, nodes, facts)
    if gpu and nvml:
        facts = replace(facts, gpu=nvml.read(gpu))
        torch.cuda.empty_cache()
    if looking is not None:
        facts = replace(facts, of_node=NodeFacts(time_s, versions() if several else {}, looking.facts()))
    return facts


def measure_speeds(ranks: Ranks, nodes: Sequence[str], first: RankFacts,
                   folders: Callable[[], FolderChecks | None]) -> RankFacts:
    """The speeds once more. Collective.

    Raises:
        FailingGpuError: The GPU of this rank fails.
    """
    looking, device = folders(), ranks.device
    again = RankFacts(first.rank, first.node, problem=first.problem)
    if first.product_tflops is not None:
        again = _with_speeds(again, device)
    if first.whole_gb_s is not None:
        again = with_links(ranks, nodes, again)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return again if looking is None else replace(again, of_node=NodeFacts(0.0, {}, looking.facts()))


def _with_speeds(facts: RankFacts, device: torch.device) -> RankFacts:
    try:
        with _naming_a_failing_gpu(device):
            return replace(facts, product_tflops=product_tflops(device), memory_gb_s=memory_gb_s(device))
    except FailingGpuError:
        raise
    except RuntimeError as error:
        return replace(facts, problem=_in_a_line(error))


def _in_a_line(error: RuntimeError) -> str:
    return " ".join(str(error).split())


def with_links(ranks: Ranks, nodes: Sequence[str], facts: RankFacts) -> RankFacts:
    """The facts with the speed of all-reduce. Collective."""
    ranks.barrier()  # slower ranks still compute
    return replace(facts, whole_gb_s=link_speed.whole(ranks), inside_gb_s=link_speed.inside(ranks, nodes),
                   across_gb_s=link_speed.across(ranks, nodes))


def product_tflops(device: torch.device) -> float:
    """TFLOP/s of a square matrix product: float16 on a GPU, float32 on a CPU."""
    side, kind = SIDE[device.type], torch.float16 if device.type == "cuda" else torch.float32
    a = (torch.arange(side * side, device=device, dtype=torch.int32) % 251 / 251 - 0.5).to(kind).view(side, side)
    out = torch.empty_like(a)
    return 2 * side**3 * _rate(device, PRODUCT_S[device.type], lambda: torch.mm(a, a, out=out)) / 1e12


def memory_gb_s(device: torch.device) -> float:
    """1e9 bytes a second that a copy in the memory of the device reads and writes."""
    a = torch.zeros(COPIED[device.type] // 4, device=device)
    out = torch.ones_like(a)
    return 2 * COPIED[device.type] * _rate(device, MEMORY_S[device.type], lambda: out.copy_(a)) / 1e9


def _rate(device: torch.device, window_s: float, work: Callable[[], object]) -> float:
    """How often a second something can be done, over a window that a fast and a slow device share."""
    at_once = 4 if device.type == "cuda" else 1
    done = -at_once  # the first ones warm up
    began = time.perf_counter()
    while done <= 0 or time.perf_counter() - began < window_s:
        for _ in range(at_once):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += at_once
        if not done:
            began = time.perf_counter()
    return done / (time.perf_counter() - began)


def _before(device: torch.device) -> tuple[GpuFacts | None, Nvml | None]:
    """The GPU before it is loaded, and what watches it meanwhile."""
    if device.type != "cuda":
        return None, None
    free, total = torch.cuda.mem_get_info(device)
    used = total - free - torch.cuda.memory_reserved(device)
    properties = torch.cuda.get_device_properties(device)
    return GpuFacts(properties.name, used / 2**30), Nvml(str(getattr(properties, "uuid", "")))


def versions() -> dict[str, str]:
    """What must be equal on all nodes: code, Python, torch with its libraries, driver."""
    cuda = {"cuda": str(torch.version.cuda or torch.version.hip or ""), "driver": driver_version()}
    return {"code": code_hash(Path(vidmae.__file__).parent), "python": platform.python_version(), "torch": torch.__version__,
            **{key: value for key, value in cuda.items() if value}}


def code_hash(package: Path) -> str:
    """Eight digits of the content of all modules below a folder."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
