"""Copies in memory of a small network on ranks that are a node each, and what is left after a fault; prints JSON; started by
test_memory.py."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch.distributed as torch_dist

from tests.support.programs.engine import build, state
from tests.support.programs.saver import step
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.ranks.saving.checkpoint import Saver, restore
from vidmae.ranks.saving.memory_copies import NodeCopies
from vidmae.ranks.saving.memory_saver import MemorySaver
from vidmae.ranks.watchdog import end_process
from vidmae.runs.record import RunFolder
from vidmae.settings.config import TrainConfig
from vidmae.settings.keeping_config import CheckpointConfig


class Desk:
    """A run in an empty folder, trained for as many steps as are asked for, with one attempt after the other.

    Args:
        path: The run folder.
        engine: What is trained; `states` is what it was after each step.
    """

    def __init__(self, path: Path, engine: Engine, train: TrainConfig, ranks: dist.Ranks) -> None:
        self.run, self.engine, self.train, self.ranks, self.said = RunFolder(path), engine, train, ranks, list[str]()
        self.states: dict[int, dict[str, list]] = {}
        self.saver = Saver(engine, self.run, train, ranks, keep=CheckpointConfig(every_steps=1), say=self.said.append)
        self.saver.prepare(0, 9)
        self.ranks.barrier()
        self.begin_attempt("abcd"[:ranks.world_size])
        self.copies.prepare(engine, 0)

    def begin_attempt(self, nodes: str, train: TrainConfig | None = None) -> None:
        """A new attempt on these nodes, a letter for each, with as many ranks on one as on the other."""
        os.environ["SLURMD_NODENAME"] = nodes[self.ranks.rank * len(nodes) // self.ranks.world_size]
        self.copies = MemorySaver(self.run, train or self.train, self.ranks, every_steps=1, say=self.said.append)
        self.node: NodeCopies = self.copies._node

    def train_to(self, last: int) -> None:
        """Train on and copy each step."""
        for n in range(max(self.states, default=0), last):
            step(self.engine, self.ranks, n, 0.0)
            if self.ranks.is_main:
                self.run.metrics.write_text("".join(f"step {i + 1}\n" for i in range(n + 1)))
            self.copies.begin(n + 1)
            self.states[n + 1] = state(self.engine)
        self.copies.finish()

    def on_main(self, act: Callable[[], object]) -> None:
        """Let rank 0 do something while the other waits."""
        self.ranks.barrier()
        if self.ranks.is_main:
            act()
        self.ranks.barrier()

    def of(self, node: str, rank: int, at: int) -> Path:
        """The file with the state of a rank in the copy of a step that a node holds."""
        (found,) = self.node.folder.parents[1].glob(f"{node}/*/step_{at:08d}-*/rank_{rank:05d}/state/*zero_pp_rank_{rank}_*")
        return found

    def come_back(self) -> dict:
        """Restore; what came of it."""
        self.said.clear()
        at = restore(self.engine, self.run, self.train, self.ranks, self.said.append, self.copies.restore)
        self.ranks.barrier()
        held = {p.name: sorted(c.name for c in p.glob("*/*/rank_*")) for p in self.node.folder.parents[1].iterdir()}
        return {"step": at, "said": self.said, "same": state(self.engine) == self.states.get(at), "held": held,
                "metrics": self.run.metrics.read_text().count("\n")}


def whole(desk: Desk) -> None:
    """As after a roll-back: the saver before has given up its group. Beside the checkpoints is one that somebody has renamed."""
    groups = len(torch_dist.distributed_c10d._world.pg_map)
    desk.copies.close()
    assert len(torch_dist.distributed_c10d._world.pg_map) == groups - 1
    desk.on_main((desk.run.checkpoints / "step_00000010.bak").mkdir)
    desk.begin_attempt("ab")


def lost_node(desk: Desk) -> None:
    """The node of rank 1 is gone with its memory; the rank is on another node."""
    desk.on_main(lambda: shutil.rmtree(desk.node.folder.parents[1] / "b"))
    desk.begin_attempt("ac")


def lost_two(desk: Desk) -> None:
    """Of four nodes two are gone that were no neighbours."""
    desk.on_main(lambda: [shutil.rmtree(desk.node.folder.parents[1] / node) for node in "bd"])
    desk.begin_attempt("aecf")


def changed_places(desk: Desk) -> None:
    """Each rank is where the other was: what the partner kept is the own copy now."""
    desk.begin_attempt("ba")


def damaged_own(desk: Desk) -> None:
    desk.on_main(lambda: os.truncate(desk.of("a", 0, 3), 100))
    desk.begin_attempt("ab")


def damaged_both(desk: Desk) -> None:
    """A byte of each is another one; the size stays."""
    def flip() -> None:
        for node in "ab":
            path = desk.of(node, 1, 3)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    desk.on_main(flip)
    desk.begin_attempt("ab")


def cut_off(desk: Desk) -> None:
    """The job died while the copies of step 4 were on their way: those of rank 1 are on no node."""
    kept = {node: desk.node.folder.parents[1] / node for node in "ab"}
    desk.on_main(lambda: [shutil.copytree(kept[node], desk.run.path / node) for node in "ab"])
    desk.train_to(4)
    desk.on_main(lambda: [shutil.copytree(desk.run.path / node, kept[node], dirs_exist_ok=True) for node in "ab"])
    desk.on_main(lambda: [shutil.rmtree(desk.of(node, 1, 4).parents[1]) for node in "ab"])
    desk.begin_attempt("ab")


def newer_on_disk(desk: Desk) -> None:
    desk.saver.save(3)
    desk.begin_attempt("ab")


def damaged_on_disk(desk: Desk) -> None:
    """The newest checkpoint on disk is damaged, and the copies are newer than the one before."""
    desk.saver.save(4)
    desk.on_main(lambda: [os.truncate(p, 9) for p in desk.run.checkpoints.glob("step_00000004/state/*")])
    desk.begin_attempt("ab")


def begun_anew(desk: Desk) -> None:
    """Somebody has moved the checkpoints away to train from step 0."""
    desk.on_main(lambda: desk.run.checkpoints.rename(desk.run.path / "away"))
    desk.begin_attempt("ab")


def other_stage(desk: Desk) -> None:
    desk.begin_attempt("ab", replace(desk.train, zero_stage=1))


def limited(desk: Desk) -> None:
    """From step 4 on the last rank can write small files only."""
    if desk.ranks.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
    desk.train_to(5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    desk.warned = [line for line in desk.said if "warning" in line]  # type: ignore[attr-defined]
    desk.begin_attempt("ab")


def removed(desk: Desk) -> None:
    desk.saver.save(3)
    desk.copies.remove()
    desk.ranks.barrier()
    desk.left = sorted(str(p) for p in desk.node.folder.parents[1].glob("*/*"))  # type: ignore[attr-defined]
    desk.begin_attempt("ab")


FAULTS = {fault.__name__: fault for fault in (whole, lost_node, changed_places, damaged_own, damaged_both, cut_off, newer_on_disk,
                                              damaged_on_disk, begun_anew, other_stage, limited, removed)}  # of two ranks


def main(path: str, stage: str, *names: str) -> None:
    """For each fault: save step 1 on disk, copy steps 2 and 3 into memory, do it, and come back."""
    ranks, train = dist.init("cpu"), TrainConfig(zero_stage=int(stage), precision="fp32", clip_grad=0.5)  # type: ignore[arg-type]
    engine = Engine(*build(), train, ranks, micro_batch=8 // ranks.world_size, grad_accum=1, averages=True)
    found = {}
    for name in names or FAULTS:
        os.environ["VIDMAE_MEMORY_DIR"] = f"{path}/{name}/memory"
        desk = Desk(Path(path, name), engine, train, ranks)
        desk.train_to(1)
        desk.saver.save(1)
        desk.train_to(3)
        {**FAULTS, "lost_two": lost_two}[name](desk)
        found[name] = {**desk.come_back(), **{key: getattr(desk, key) for key in ("warned", "left") if hasattr(desk, key)}}
    print(json.dumps(found))
    dist.close()
    end_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
