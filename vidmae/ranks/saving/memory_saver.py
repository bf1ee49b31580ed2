"""Checkpoints in memory, every few steps: each rank's shards on its own node and on the partner node.

Training waits while the state is copied to host memory, and where the copies before are still on their way. The rest is
done by a thread: it writes the own copy (`memory_copies.py`), exchanges copies with the partners (`partner.py`), hears from
all ranks whether they have theirs, and drops the older generation. So a killed rank, or a node that is lost with its memory,
costs at most the steps since the last copy but one. Checkpoints on disk are as without this.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from vidmae.ranks.dist import Ranks
from vidmae.ranks.engine import Engine
from vidmae.ranks.saving.checkpoint import CheckpointError
from vidmae.ranks.saving.memory_copies import (
    HEADERS_BYTES,
    KEPT,
    Generation,
    NodeCopies,
    rank_name,
    resident_bytes,
)
from vidmae.ranks.saving.memory_restore import MemoryRestore
from vidmae.ranks.saving.partner import Partners
from vidmae.ranks.saving.retention import GIB, HEADROOM
from vidmae.ranks.shard_writer import Background, write_shards
from vidmae.runs.nodes.left_out import node_name
from vidmae.runs.record import SCHEMA, RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.config import TrainConfig

TOKEN = "copies.json"  # in checkpoints/: a run that is begun anew there has another token, and takes no copy of before


class MemorySaver:
    """The copies of a run in the memory of its nodes. All methods are collective.

        copies = MemorySaver(run, train, ranks, every_steps=5, say=say)
        step = checkpoint.restore(engine, run, train, ranks, say, copies.restore)
        copies.prepare(engine, step)              # before the first step
        copies.begin(step)                        # after each step
        copies.finish(); copies.remove()          # once the state is on disk, and nothing more is trained

    Args:
        run: The run folder.
        train: The recipe's section.
        ranks: From `dist.init`.
        every_steps: Steps between two copies.
        say: Told what is found, kept and lost.
    """

    def __init__(self, run: RunFolder, train: TrainConfig, ranks: Ranks, *, every_steps: int,
                 say: Callable[[str], None]) -> None:
        self._run, self._train, self._ranks, self._every, self._say = run, train, ranks, every_steps, say
        self._partners = Partners(ranks)
        token, self._attempt = ranks.from_main((_token(run), secrets.token_hex(4)) if ranks.is_main else None)
        self._node = NodeCopies(run.path, token)
        self._found = MemoryRestore(run, train, ranks, self._partners, self._node, say)
        self._complete = 0  # the newest step whose copies all ranks have
        self._engine: Engine | None = None
        self._writing: Background | None = None
        self._off = False

    def restore(self, engine: Engine, newer_than: int) -> int:
        """See `MemoryRestore.newest`."""
        return self._found.newest(engine, newer_than)

    def prepare(self, engine: Engine, start: int) -> None:
        """Make sure that there is room, and remove what is of no use any more. Before the first step.

        Args:
            engine: What is copied.
            start: Updates done; what the restore returned.
        Raises:
            CheckpointError: A node has no room for the copies, or its folder cannot be used; on every rank alike.
        """
        self._engine = engine
        loaded = self._found.loaded
        self._complete = loaded.step if loaded and loaded.step == start else 0
        need, job = self._bytes(self._ranks.gather(resident_bytes()))
        problem = None
        if self._partners.leads:
            self._node.drop_all_but(loaded if self._complete else None)
            for name in self._node.remove_stale():
                print(f"removed copies of {name} from the memory of {node_name()}: nothing was added for a day", flush=True)
            problem = self._node.why_no_room(need[node_name()], job[node_name()])
        for node, why in zip(self._partners.nodes, self._ranks.gather(problem), strict=True):
            if why:
                raise CheckpointError(
                    f"checkpoint.memory_steps {self._every} keeps copies in memory, {need[node] / GIB:.3g} GiB on node "
                    f"{node}: {why}. --set checkpoint.memory_steps=0 trains without them")
        alone = "" if len(need) > 1 else ": one node alone, so they do not survive its loss"
        self._say(f"copies in memory every {self._every} steps take up to {max(need.values()) / GIB:.3g} GiB of a node's "
                  f"memory, in {self._node.folder.parents[2]}{alone}")

    def begin(self, step: int) -> float:
        """Start a copy of the state, if one is due; seconds that training lost.

        Raises:
            RuntimeError: A rank is gone.
        """
        if self._off or step % self._every:
            return 0.0
        started = time.monotonic()
        self.finish()
        if not self._off:
            assert self._engine is not None, "prepare comes first"
            shards = self._engine.shards(copied=True, pinned=self._ranks.device.type == "cuda")
            if self._ranks.is_main:
                shards |= {path.name: path.read_bytes() for path in self._run.records if path.exists()}
            generation = Generation(step, self._attempt)
            self._writing = Background(lambda: (generation, self._copy(generation, shards)), daemon=True)
        return time.monotonic() - started

    def finish(self) -> float:
        """Wait for the copy under way, if there is one; seconds that training lost. See `begin`."""
        if self._writing is None:
            return 0.0
        started, writing, self._writing = time.monotonic(), self._writing, None
        writing.wait()
        if writing.problem:
            raise RuntimeError(f"the exchange of copies in memory over gloo has ended: {writing.problem}")
        generation, problems = writing.result
        if problems:
            self._off = True
            kept = f"those of step {self._complete} stay" if self._complete else "there are none"
            self._say(f"warning: copies in memory of step {generation.step} failed: {'; '.join(problems)}. No more are made "
                      f"until the run starts again, {kept}; checkpoints on disk go on")
        else:
            self._complete = generation.step
        return time.monotonic() - started

    def remove(self) -> None:
        """Remove the copies from all nodes: the state is on disk. After `finish`."""
        self._ranks.barrier()
        if self._partners.leads:
            self._node.remove()

    def close(self) -> None:
        """Leave the copies where they are, and make no more. After `finish`; a roll-back makes another saver."""
        self._partners.close()

    def _bytes(self, resident: list[int]) -> tuple[dict[str, int], dict[str, int]]:
        """By node: bytes of its copies at the worst moment; bytes of its ranks, with the copies on their way.

        Args:
            resident: Memory of each rank, bytes.
        """
        assert self._engine is not None
        nodes, keeper = self._partners.nodes, self._partners.of
        records: int = self._ranks.from_main(sum(path.stat().st_size for path in self._run.records if path.exists())
                                             if self._ranks.is_main else 0)
        need, job = dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
        for rank, node in enumerate(nodes):
            each = round(self._engine.rank_bytes(rank) * HEADROOM) + HEADERS_BYTES + (records if rank == 0 else 0)
            for holder in {node, nodes[keeper[rank]]}:
                need[holder] += KEPT * each
            job[node] += resident[rank] + each
        return need, job

    def _copy(self, generation: Generation, shards: dict[str, Any]) -> list[str]:
        """Write this rank's copy, exchange copies with the partners, and agree: what failed, by rank."""
        name, problem = rank_name(self._ranks.rank), None
        try:
            folder = self._node.draft(generation, name, shards)
            files = write_shards(folder, shards)
            self._node.publish(generation, name, {
                "schema": SCHEMA, "step": generation.step, "attempt": generation.attempt, "rank": self._ranks.rank,
                "world_size": self._ranks.world_size, "zero_stage": self._train.zero_stage,
                "precision": self._train.precision, "files": files})
        except OSError as error:  # the partner still waits for what comes
            shards.clear()
            problem = f"{error.filename or self._node.folder}: {error.strerror}"
        coming = self._partners.exchange(self._node, generation, self._partners.to_partners())
        problems = self._partners.problems(next((p for p in (problem, *(each.problem for each in coming)) if p), None))
        if self._partners.leads:
            if problems:
                self._node.drop(generation)
            else:
                self._node.drop_before(generation)
        return problems


def _token(run: RunFolder) -> str:
    """The token of a run's checkpoints, made where there is none."""
    path = run.checkpoints / TOKEN
    try:
        if (record := read_json(path)) and isinstance(record.get("token"), str):
            return str(record["token"])
    except ValueError:
        pass  # damaged: a new one, and copies of before are of no use
    token = secrets.token_hex(8)
    try:
        make_private_folder(run.checkpoints)
        write_json(path, {"schema": SCHEMA, "token": token})
    except OSError:
        pass  # the saver says so, before the first step
    return token
