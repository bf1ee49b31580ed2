"""From copies in the memory of the nodes to a run that goes on: which generation is whole, and who gives what to whom."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from vidmae.ranks.dist import Ranks
from vidmae.ranks.engine import TAG, Engine
from vidmae.ranks.saving.checkpoint import CheckpointError, restore_records
from vidmae.ranks.saving.memory_copies import Generation, NodeCopies, rank_name
from vidmae.ranks.saving.partner import Partners
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import TrainConfig

SHARED = "shared"  # of rank 0's files those that every rank reads, while a generation is loaded
Holders = dict[int, list[str]]


class MemoryRestore:
    """Looks for copies in memory at the start of a run. All methods are collective.

    Args:
        run: The run folder.
        train: The recipe's section.
        ranks: From `dist.init`.
        partners: The same ranks.
        node: What this node holds.
        say: Told what is found.
    Attributes:
        loaded: The generation that was loaded, once one was.
    """

    def __init__(self, run: RunFolder, train: TrainConfig, ranks: Ranks, partners: Partners, node: NodeCopies,
                 say: Callable[[str], None]) -> None:
        self._run, self._train, self._ranks, self._partners, self._node, self._say = run, train, ranks, partners, node, say
        self._tried: set[Generation] = set()
        self.loaded: Generation | None = None

    def newest(self, engine: Engine, newer_than: int) -> int:
        """Load the newest generation that is whole and newer than a step.

        Args:
            engine: Is loaded.
            newer_than: Updates of the checkpoint on disk that is loaded else.
        Returns:
            Updates done; 0 where there is no such generation, and nothing was changed.
        """
        for generation, holders in self._found(newer_than):
            self._tried.add(generation)
            what, world_size = f"copies of step {generation.step} in memory", self._ranks.world_size
            came = self._bring(generation, holders)
            if isinstance(came, str):
                self._say(f"{what} are of no use: {came}")
                continue
            self._load(engine, generation)
            self.loaded = generation
            self._say(f"continuing from {what}: {world_size - came} of {world_size} ranks have theirs on their node, "
                      f"{came} got it from another")
            return generation.step
        return 0

    def _found(self, newer_than: int) -> list[tuple[Generation, Holders]]:
        """Generations newer than a step, the newest first: for each rank the nodes that hold its copy, its own first."""
        found: dict[Generation, Holders] = {}
        others = set()
        for at, held in enumerate(self._ranks.gather(self._node.held() if self._partners.leads else [])):
            for record in held:
                generation = Generation(record["step"], record["attempt"])
                made = record["world_size"], record["zero_stage"], record["precision"]
                if generation.step <= newer_than or generation in self._tried:
                    continue
                if made == (self._ranks.world_size, self._train.zero_stage, self._train.precision):
                    found.setdefault(generation, defaultdict(list))[record["rank"]].append(self._partners.nodes[at])
                else:
                    others.add((generation.step, *made))
        for step, world_size, stage, precision in sorted(others):
            self._say(f"copies of step {step} in memory are of no use: they are of {world_size} ranks with ZeRO {stage} in "
                      f"{precision}, this job has {self._ranks.world_size} with ZeRO {self._train.zero_stage} in "
                      f"{self._train.precision}")
        for holders in found.values():
            for rank, nodes in holders.items():
                nodes.sort(key=lambda node: node != self._partners.nodes[rank])
        return sorted(found.items(), key=lambda item: item[0], reverse=True)

    def _bring(self, generation: Generation, holders: Holders) -> str | int:
        """Have every rank's copy on its node, verified: how many came from another node, or why it cannot be."""
        mine, nodes, came = self._ranks.rank, self._partners.nodes, 0
        todo = set(range(self._ranks.world_size))
        if missing := sorted(todo - holders.keys()):
            return f"no node has those of {_some(missing)}"
        while todo:
            source = {rank: holders[rank].pop(0) for rank in sorted(todo)}
            problem = None
            for rank, node in source.items():  # a rank may send several: one after the other, in the same order on all
                name = rank_name(rank)
                if node == nodes[rank]:
                    problem = self._node.problem(generation, name) if rank == mine else problem
                    continue
                coming = self._partners.exchange(self._node, generation, {name: (self._partners.sender(node, rank), rank)})
                if coming:
                    problem = None if coming[0].whole else coming[0].problem or "it is gone"
            for rank, why in enumerate(self._ranks.gather(problem)):
                if why is None and rank in todo:
                    todo.remove(rank)
                    came += source[rank] != nodes[rank]
                elif why:
                    said = f"that of rank {rank} on node {source[rank]}: {why}"
                    if not holders[rank]:
                        return said
                    self._say(f"copies of step {generation.step} in memory, {said}; taking that of {holders[rank][0]}")
        return came

    def _load(self, engine: Engine, generation: Generation) -> None:
        """Load what is on the nodes: a rank sees its own files, and those of rank 0 that all ranks read."""
        self._share(generation)
        own, shared = (self._node.path(generation, name) for name in (rank_name(self._ranks.rank), SHARED))
        view = own.with_name(f"view-{own.name}")
        shutil.rmtree(view, ignore_errors=True)
        make_private_folder(view / TAG)
        files = {path.name: path for folder in (shared, own) for path in (folder / TAG).glob("*")}
        for name, path in files.items():
            (view / TAG / name).hardlink_to(path)
        engine.load(view)
        if self._ranks.is_main:
            restore_records(self._run, own)
        shutil.rmtree(view)
        self._ranks.barrier()
        if self._partners.leads:
            shutil.rmtree(shared)

    def _share(self, generation: Generation) -> None:
        """Put what all ranks read of rank 0's files on every node, from node to node: 1, 2, 4 ... nodes have it."""
        if self._ranks.is_main:
            self._make_shared(generation)
        leads = [self._partners.nodes.index(node) for node in dict.fromkeys(self._partners.nodes)]
        have = 1
        while have < len(leads):
            coming = [each for pair in zip(leads, leads[have:2 * have], strict=False)
                      for each in self._partners.exchange(self._node, generation, {SHARED: pair})]
            problem = None if all(each.whole for each in coming) else coming[0].problem or "it is gone"
            if why := next((p for p in self._ranks.gather(problem) if p), None):
                raise CheckpointError(f"copies in memory could not be given to all nodes: {why}. Continue with --retry; "
                                      "--set checkpoint.memory_steps=0 goes on from the newest checkpoint on disk")
            have *= 2
        self._ranks.barrier()

    def _make_shared(self, generation: Generation) -> None:
        own, record = self._node.path(generation, rank_name(0)), self._node.record_of(generation, rank_name(0))
        assert record is not None, "it was verified"
        files = {name: seal for name, seal in record["files"].items() if name.startswith(f"{TAG}/") and (
            self._train.zero_stage == 0 or not Path(name).name.startswith(("zero_pp_rank", "average")))}
        draft = self._node.draft(generation, SHARED, files)
        for name in files:
            (draft / name).hardlink_to(own / name)
        self._node.publish(generation, SHARED, {**record, "files": files})


def _some(ranks: Sequence[int]) -> str:
    """`ranks 1, 2, 3, 4 and 12 more`."""
    shown = ", ".join(map(str, ranks[:4]))
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}" + (f" and {len(ranks) - 4} more" if len(ranks) > 4 else "")
