"""Which nodes are too slow or wrong, and what is done about it: pure functions of what the ranks measured. Stdlib only.

A speed is compared with the median of the other ranks of the job (of a folder: of the other nodes); of an even number of
others the better of the two in the middle counts. What is below this share of it is too slow:

    speed                       GPU     GPU, one other    CPU     CPU, one other
    matrix product              80 %    65 %              30 %    20 %
    copying memory              80 %    65 %              30 %    20 %
    links inside a node         60 %    40 %              20 %    15 %
    links between nodes         50 %    -                 15 %    -         the faster of the two neighbours counts
    writing to the run folder   10 %    5 %               10 %    5 %       shared and noisy: only what is broken
    writing to data.stage       25 %    10 %              25 %    10 %
    room on data.stage, shm     25 %    10 %              25 %    10 %

"One other" is a job of two nodes, or of two GPUs on one node. The limits are wide: GPUs of one kind are expected within a
tenth of each other, and CPUs are shared, also with other jobs. Between two nodes there is one link, and which of them is at
fault cannot be known: then nobody is blamed. A speed that is found too low is measured once more, and the better of the two
counts.

Not by speed: more than 2 GiB of a GPU's memory in use above the median, processes of others on it, uncorrected ECC errors,
rows that failed or wait for a reset, an Xid during the checks, fewer PCIe lanes or NVLinks than most, a folder that cannot
be written, a clock that is 10 s from the median, and a version of driver, torch, Python or code that most nodes do not have.
A GPU that does less than 35 % of its data sheet is named and not blamed: where all do, another node does not help.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_high, median_low

from vidmae.ranks.health.node_facts import FolderFacts, GpuFacts, NodeFacts, RankFacts
from vidmae.runs.gpus import find_gpu

OTHERS_GIB = 2.0
CLOCK_S = 10.0
OF_DATA_SHEET = 0.35
_FOLDERS = {"run": "the run folder", "stage": "data.stage", "tmp": "the folder for temporary files", "shm": "/dev/shm"}
Value = tuple[str, str, float]  # of a node, who measured it there, how much


@dataclass(frozen=True)
class Limit:
    """The share of the others' speed that is too little: on GPUs and CPUs, and where there is one other alone."""

    gpu: float
    gpu_of_two: float
    cpu: float
    cpu_of_two: float

    def share(self, *, on_gpu: bool, of_two: bool) -> float:
        """The one that counts."""
        if on_gpu:
            return self.gpu_of_two if of_two else self.gpu
        return self.cpu_of_two if of_two else self.cpu


PRODUCT, MEMORY = Limit(0.80, 0.65, 0.30, 0.20), Limit(0.80, 0.65, 0.30, 0.20)
INSIDE, ACROSS = Limit(0.60, 0.40, 0.20, 0.15), Limit(0.50, 0.50, 0.15, 0.15)
WRITE_RUN, WRITE_STAGE, ROOM = Limit(0.10, 0.05, 0.10, 0.05), Limit(0.25, 0.10, 0.25, 0.10), Limit(0.25, 0.10, 0.25, 0.10)


@dataclass(frozen=True)
class Finding:
    """What is wrong with a node.

    Attributes:
        node: Its name; of what cannot be told apart both, joined by ` or `.
        check: A word for the kind of check; `speed` of it is one that is measured again.
        text: What was measured and what would be right.
        blames: Whether the node is left out where the checks are enforced.
        speed: Whether it may be a matter of the moment.
    """

    node: str
    check: str
    text: str
    blames: bool = True
    speed: bool = False


@dataclass(frozen=True)
class Decision:
    """What is done: `none`, `warned`, `requeued` without `nodes`, or `failed`; and why, for people."""

    action: str
    nodes: tuple[str, ...] = ()
    why: str = ""


def judge(ranks: Sequence[RankFacts]) -> list[Finding]:
    """Everything that is wrong, of each node in the order of the ranks.

    Args:
        ranks: What all ranks of the job measured, in rank order.
    """
    found = [Finding(each.node, "failed", f"rank {each.rank}: {each.problem}") for each in ranks if each.problem]
    found += [finding for each in ranks if each.gpu for finding in _of_gpu(each, each.gpu)]
    found += [*_of_gpus(ranks), *_speeds(ranks), *_of_nodes(ranks)]
    slow = {finding.node for finding in found if finding.check == "product"}
    found += [finding for finding in _data_sheet(ranks) if finding.node not in slow]
    order = {name: i for i, name in enumerate(dict.fromkeys(each.node for each in ranks))}
    return sorted(found, key=lambda finding: order.get(finding.node, len(order)))


def decide(findings: Sequence[Finding], nodes: Sequence[str], *, enforce: bool, before: Sequence[str], requeues: bool,
           ) -> Decision:
    """What is done about findings.

    Args:
        findings: From `judge`.
        nodes: Of the job, each once.
        enforce: Whether bad nodes are left out.
        before: Nodes that this job has left out at an earlier start.
        requeues: Whether something requeues the job: it is one of Slurm's.
    """
    if not findings:
        return Decision("none")
    bad = tuple(dict.fromkeys(finding.node for finding in findings if finding.blames))
    if not enforce or not bad:
        return Decision("warned")
    said, train = ", ".join(bad), "to train on them all the same: --checks warn"
    if not requeues:
        return Decision("failed", bad, f"{said}: nothing requeues a job on this machine; {train}")
    if again := [node for node in bad if node in before]:
        return Decision("failed", bad, f"{', '.join(again)}: this job has left it out before and got it again (does "
                                       f"--nodelist name it, or has the partition too few other nodes?); {train}")
    if len(nodes) > 1 and 2 * len(bad) > len(nodes):
        return Decision("failed", bad, f"{said}: {len(bad)} of {len(nodes)} nodes, at most half can be left out; what most "
                                       f"nodes have is no fault of single ones; {train}")
    return Decision("requeued", bad, f"leaving, so that the job is requeued without {said}")


def better(first: Sequence[RankFacts], second: Sequence[RankFacts]) -> list[RankFacts]:
    """The first measurement with the speeds of a second one where those are higher."""
    def most(a: float | None, b: float | None) -> float | None:
        return max((x for x in (a, b) if x is not None), default=None)

    return [RankFacts(
        a.rank, a.node, most(a.product_tflops, b.product_tflops), most(a.memory_gb_s, b.memory_gb_s),
        most(a.whole_gb_s, b.whole_gb_s), most(a.inside_gb_s, b.inside_gb_s),
        {node: max(speed, b.across_gb_s.get(node, 0.0)) for node, speed in a.across_gb_s.items()}, a.gpu,
        a.problem or b.problem, _better_of_node(a.of_node, b.of_node)) for a, b in zip(first, second, strict=True)]


def _better_of_node(a: NodeFacts | None, b: NodeFacts | None) -> NodeFacts | None:
    if a is None or b is None:
        return a
    later = {folder.what: folder for folder in b.folders}

    def folder(one: FolderFacts) -> FolderFacts:
        other = later.get(one.what, one)
        faster = other if (other.write_mib_s or 0.0) > (one.write_mib_s or 0.0) else one
        return FolderFacts(one.what, one.free_gib, faster.write_mib_s, one.problem)

    return NodeFacts(a.time_s, a.versions, tuple(map(folder, a.folders)))


def _of_gpu(rank: RankFacts, gpu: GpuFacts) -> Iterator[Finding]:
    """What a GPU says of itself."""
    said = []
    if gpu.xids:
        said.append(f"the driver reported Xid {', '.join(map(str, gpu.xids))} during the checks")
    if gpu.ecc_errors:
        said.append(f"{gpu.ecc_errors} uncorrected ECC errors since the driver was loaded, allowed: 0")
    if gpu.rows:
        said.append("memory rows that could not be replaced" if gpu.rows == "failed" else
                    "memory rows wait to be replaced, which a reset of the GPU does")
    if gpu.others:
        said.append(f"{gpu.others} processes of others are on it, allowed: 0")
    for text in said:
        yield Finding(rank.node, "gpu", f"GPU of rank {rank.rank}: {text}")


def _of_gpus(ranks: Sequence[RankFacts]) -> Iterator[Finding]:
    """What is to be seen beside other GPUs alone."""
    gpus = [(each, each.gpu) for each in ranks if each.gpu]
    usual = median_low([gpu.used_gib for _, gpu in gpus]) if len(gpus) > 1 else OTHERS_GIB
    for rank, gpu in gpus:
        if gpu.used_gib > usual + OTHERS_GIB:
            yield Finding(rank.node, "gpu", f"GPU of rank {rank.rank}: {gpu.used_gib:.1f} GiB of memory are in use already, "
                          f"allowed: {usual + OTHERS_GIB:.1f} GiB")
    for attribute, what in (("pcie_lanes", "PCIe lanes"), ("nvlinks", "NVLinks")):
        counts = [(rank, getattr(gpu, attribute)) for rank, gpu in gpus if getattr(gpu, attribute) is not None]
        most_have = median_high([count for _, count in counts]) if counts else 0
        for rank, count in counts:
            if count < most_have:
                yield Finding(rank.node, "gpu", f"GPU of rank {rank.rank}: {count} {what}, most have {most_have}")


def _speeds(ranks: Sequence[RankFacts]) -> Iterator[Finding]:
    """Ranks that are slower than the others of the job."""
    nodes = list(dict.fromkeys(each.node for each in ranks))
    how = {"on_gpu": any(each.gpu for each in ranks), "of_two": (len(nodes) if len(nodes) > 1 else len(ranks)) == 2}

    def values(speed: Callable[[RankFacts], float | None]) -> list[Value]:
        return [(each.node, f"rank {each.rank}", value) for each in ranks if (value := speed(each)) is not None]

    yield from _slow("product", "matrix product", "TFLOP/s", values(lambda r: r.product_tflops), PRODUCT.share(**how))
    yield from _slow("memory", "copying memory", "GB/s", values(lambda r: r.memory_gb_s), MEMORY.share(**how))
    if len(nodes) > 1:
        yield from _slow("inside", "links inside the node", "GB/s", values(lambda r: r.inside_gb_s), INSIDE.share(**how))
    across = values(lambda r: max(r.across_gb_s.values(), default=None))
    for found in _slow("across", "link with other nodes", "GB/s", across, ACROSS.share(**how)):
        blames = len(nodes) > 2
        yield Finding(found.node if blames else " or ".join(nodes), found.check, found.text, blames, speed=True)
    for what, limit in (("run", WRITE_RUN), ("stage", WRITE_STAGE)):
        rates = _of_folders(ranks, what, "write_mib_s")
        yield from _slow(f"write-{what}", f"writing to {_FOLDERS[what]}", "MiB/s", rates, limit.share(**how))
    for what in ("stage", "shm"):
        rooms = _of_folders(ranks, what, "free_gib")
        for found in _slow(f"room-{what}", f"room on {_FOLDERS[what]}", "GiB", rooms, ROOM.share(**how)):
            yield Finding(found.node, found.check, found.text)


def _slow(check: str, what: str, unit: str, values: Sequence[Value], share: float) -> Iterator[Finding]:
    """A finding for each node that has less than the share of the others' median, of its worst value."""
    worst: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for (node, who, value), usual in zip(values, _median_of_others([value for *_, value in values]), strict=True):
        if value < share * usual:
            of_others = f"{value / usual:.0%} of the others' {usual:.3g} (allowed: {share:.0%})"
            worst[node].append((value / usual, f"{what} {value:.3g} {unit} on {who}, {of_others}"))
    for node, found in worst.items():
        more = f", and {len(found) - 1} more ranks" if len(found) > 1 else ""
        yield Finding(node, check, min(found)[1] + more, speed=True)


def _median_of_others(values: Sequence[float]) -> list[float]:
    """For each value the median of the others, of an even number the higher one; 0 where there is no other."""
    if len(values) < 2:
        return [0.0] * len(values)
    ordered, middle = sorted(values), (len(values) - 1) // 2
    places = {place: at for at, place in enumerate(sorted(range(len(values)), key=values.__getitem__))}
    return [ordered[middle + 1] if places[i] <= middle else ordered[middle] for i in range(len(values))]


def _of_folders(ranks: Sequence[RankFacts], what: str, attribute: str) -> list[Value]:
    return [(each.node, each.node, float(value)) for each in ranks if each.of_node for folder in each.of_node.folders
            if folder.what == what and not folder.problem and (value := getattr(folder, attribute)) is not None]


def _data_sheet(ranks: Sequence[RankFacts]) -> Iterator[Finding]:
    """GPUs that are slow by themselves: named, and not blamed."""
    for each in ranks:
        sheet = find_gpu(each.gpu.name) if each.gpu else None
        if sheet and each.product_tflops is not None and each.product_tflops < OF_DATA_SHEET * sheet.peak_tflops:
            held = f", its clocks are held down ({', '.join(each.gpu.slowed)})" if each.gpu and each.gpu.slowed else ""
            least = OF_DATA_SHEET * sheet.peak_tflops
            yield Finding(each.node, "data-sheet", f"matrix product {each.product_tflops:.3g} TFLOP/s on rank {each.rank}, "
                          f"expected of {sheet.name}: {least:.3g} or more{held}", blames=False, speed=True)


def _of_nodes(ranks: Sequence[RankFacts]) -> Iterator[Finding]:
    """Folders that cannot be written, clocks, versions."""
    nodes = [(each.node, each.of_node) for each in ranks if each.of_node]
    for node, facts in nodes:
        for folder in facts.folders:
            if folder.problem:
                yield Finding(node, "folder", f"{_FOLDERS[folder.what]} cannot be written: {folder.problem}")
    yield from _clocks(nodes)
    yield from _versions(dict(nodes))


def _clocks(nodes: Sequence[tuple[str, NodeFacts]]) -> Iterator[Finding]:
    if len(nodes) == 2:
        apart = abs(nodes[0][1].time_s - nodes[1][1].time_s)
        if apart > CLOCK_S:
            yield Finding(" or ".join(node for node, _ in nodes), "clock",
                          f"their clocks are {apart:.1f} s apart, allowed: {CLOCK_S:g} s", blames=False)
        return
    usual = median(facts.time_s for _, facts in nodes) if nodes else 0.0
    for node, facts in nodes:
        if abs(facts.time_s - usual) > CLOCK_S:
            yield Finding(node, "clock",
                          f"its clock is {facts.time_s - usual:+.1f} s from the median, allowed: {CLOCK_S:g} s")


def _versions(nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    for key in dict.fromkeys(key for facts in nodes.values() for key in facts.versions):
        has = {node: facts.versions.get(key, "unknown") for node, facts in nodes.items()}
        (usual, most), *_ = Counter(has.values()).most_common()
        if 2 * most > len(has):
            for node, version in has.items():
                if version != usual:
                    yield Finding(node, "version", f"{key} {version}, most nodes have {usual}")
        else:
            all_of_them = ", ".join(f"{node} {version}" for node, version in sorted(has.items()))
            yield Finding(" or ".join(sorted(has)), "version", f"{key} differs: {all_of_them}", blames=False)
