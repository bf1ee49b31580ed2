"""What ranks and nodes measure of themselves before the first step, as plain values. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class GpuFacts:
    """A GPU before and after it was loaded; None where it cannot be known.

    Attributes:
        name: What torch calls it.
        used_gib: Of its memory before this rank took any: contexts of this job, and whatever others have.
        nvml: Why the rest was not asked; empty where it was.
        others: Processes on it beside this rank.
        ecc_errors: Uncorrected memory errors since the driver was loaded.
        rows: `failed` or `pending` where memory rows could not be, or wait to be, replaced; else empty.
        xids: Numbers of the errors that the driver reported while the checks ran.
        slowed: Why the hardware held its clocks down under load.
        pcie_lanes: Width of its link to the host.
        nvlinks: Links to other GPUs that are up.
        temperature_c: Under load.
    """

    name: str
    used_gib: float
    nvml: str = ""
    others: int | None = None
    ecc_errors: int | None = None
    rows: str = ""
    xids: tuple[int, ...] = ()
    slowed: tuple[str, ...] = ()
    pcie_lanes: int | None = None
    nvlinks: int | None = None
    temperature_c: int | None = None


@dataclass(frozen=True)
class FolderFacts:
    """A folder as a node sees it.

    Attributes:
        what: run, stage (data.stage), tmp or shm.
        free_gib: Room; of stage and shm with what copies of this user take there already.
        write_mib_s: Speed of writing and flushing; None where little was written.
        problem: Why nothing can be written there; else empty.
    """

    what: str
    free_gib: float | None = None
    write_mib_s: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """What one rank of a node measured for all of its ranks.

    Attributes:
        time_s: Its clock at the moment at which all ranks looked, seconds since 1970.
        versions: Of what must be equal on all nodes.
        folders: Each that the run writes to.
    """

    time_s: float
    versions: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[FolderFacts, ...] = ()


@dataclass(frozen=True)
class RankFacts:
    """What a rank measured; None where it was not.

    Attributes:
        rank: Of all.
        node: As Slurm calls it.
        product_tflops: Matrix product, TFLOP/s: float16 on a GPU, float32 on a CPU.
        memory_gb_s: Copying memory, 1e9 bytes read and written a second.
        whole_gb_s: All-reduce of all ranks of the job, 1e9 bytes a second.
        inside_gb_s: Sent and received at once, around the ranks of its node, 1e9 bytes a second each.
        across_gb_s: The same with one rank of a neighbour node, by the node's name.
        gpu: Its GPU, where it computes on one.
        problem: What failed while it was measured; else empty.
        of_node: What it measured for its node; on one rank of each.
    """

    rank: int
    node: str
    product_tflops: float | None = None
    memory_gb_s: float | None = None
    whole_gb_s: float | None = None
    inside_gb_s: float | None = None
    across_gb_s: Mapping[str, float] = field(default_factory=dict)
    gpu: GpuFacts | None = None
    problem: str = ""
    of_node: NodeFacts | None = None
