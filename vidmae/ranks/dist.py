"""Who am I among the ranks, and how the ranks agree.

Three ways to be started are known: under torchrun or the suite's launcher (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), under a bare `srun` (SLURM_PROCID ...), and as one process. Half an environment is an error: a job that
was meant to have 64 ranks must not train as 64 jobs of one.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist

from vidmae.runs.record import port_of_job

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
T = TypeVar("T")
_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class RankError(RuntimeError):
    """The environment or the device does not fit what the job was asked to be."""


class NoGpuError(RankError):
    """A GPU was asked for or granted, and this node does not show it."""


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    With many ranks, what they tell each other and what they ask of a shared file system is what grows. `on_main`,
    `main_first`, `first` and `joined` keep that small; `gather` sends every rank's value to every rank, each as long as the
    longest, and is for what is rare. tests/bench/bench_scale.py counts it for 1,024 ranks.

    Attributes:
        rank: 0 to world_size - 1.
        world_size: Processes of the job.
        local_rank: Index on this node.
        device: Where this rank computes.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on rank 0, the one that writes records."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        torch_dist.barrier()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over all ranks, in float64; the same on every rank."""
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch_dist.all_reduce(tensor)
        return tensor.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` of the device, summed over all ranks in place; nothing waits for the device."""
        torch_dist.all_reduce(tensor)
        return tensor

    def gather_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every rank's `tensor` of the device, all of one length [n], in rank order: [world_size, n]."""
        if self.world_size == 1:
            return tensor[None]
        whole = tensor.new_empty(self.world_size, len(tensor))
        torch_dist.all_gather_into_tensor(whole.view(-1), tensor.contiguous())
        return whole

    def from_main(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        return self._from(0, value)

    def _from(self, rank: int, value: Any) -> Any:
        if self.world_size == 1:
            return value
        box = [value]
        torch_dist.broadcast_object_list(box, src=rank, device=self.device)
        return box[0]

    def on_main(self, act: Callable[[], T]) -> T:
        """What rank 0 finds, on every rank: the others open no file for it. Where it fails, all ranks fail alike.

        Args:
            act: Called on rank 0 alone; what it returns or raises is sent to the others.
        """
        if self.world_size == 1:
            return act()
        found: tuple[Any, Exception | None] = None, None
        if self.is_main:
            try:
                found = act(), None
            except Exception as error:
                found = None, error
        value, problem = self.from_main(found)
        if problem is not None:
            raise problem
        return value  # type: ignore[no-any-return]

    def main_first(self, act: Callable[[], T]) -> T:
        """What `act` finds on this rank; rank 0 calls it before the others, which then read what it has made."""
        mine: list[T] = []
        self.on_main(lambda: mine.append(act()))
        return mine[0] if self.is_main else act()

    def first(self, value: T | None) -> T | None:
        """The value of the lowest rank that has one, on every rank; None where none has."""
        if self.world_size == 1:
            return value
        holder = torch.tensor([self.world_size if value is None else self.rank], device=self.device)
        torch_dist.all_reduce(holder, op=torch_dist.ReduceOp.MIN)
        rank = int(holder)
        return None if rank == self.world_size else self._from(rank, value)

    def joined(self, values: Sequence[T]) -> list[T]:
        """The values of all ranks, one behind the other in rank order, on every rank.

        For lists that are empty on most ranks: what is sent is the values that there are, and 8 bytes for each rank.
        """
        if self.world_size == 1:
            return list(values)
        mine = bytearray(pickle.dumps(list(values))) if values else bytearray()
        sizes = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(mine)
        torch_dist.all_reduce(sizes)
        ends = [0, *torch.cumsum(sizes, 0).tolist()]
        whole = torch.zeros(ends[-1], dtype=torch.uint8, device=self.device)
        if mine:
            whole[ends[self.rank]:ends[self.rank + 1]] = torch.frombuffer(mine, dtype=torch.uint8).to(self.device)
        if ends[-1]:
            torch_dist.all_reduce(whole)  # a sum of which all ranks but one give zeros
        data = whole.cpu().numpy().tobytes()
        return [value for start, end in pairwise(ends) if start < end for value in pickle.loads(data[start:end])]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value on every rank, in rank order."""
        box: list[Any] = [None] * self.world_size
        torch_dist.all_gather_object(box, value)
        return box


def rank_env(env: Mapping[str, str]) -> dict[str, str]:
    """The five rendezvous variables of this process, from however it was started.

    Args:
        env: The process environment.
    Returns:
        RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    Raises:
        RankError: Only some of them are set, or Slurm's task variables are incomplete; the message names them.
    """
    have = [name for name in _NAMES if name in env]
    if len(have) == len(_NAMES):
        return {name: env[name] for name in _NAMES}
    if have and have != ["MASTER_ADDR"]:
        missing = [name for name in _NAMES if name not in env]
        raise RankError(f"{', '.join(have)} set but {', '.join(missing)} missing: start every rank with the launcher, "
                        "torchrun or srun, or unset them to train in one process")
    tasks = env.get("SLURM_NTASKS")
    if "SLURM_STEP_ID" in env and env.get("SLURM_STEP_NUM_TASKS"):
        tasks = env["SLURM_STEP_NUM_TASKS"]
    if tasks is None or int(tasks) == 1:
        return {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    missing = [n for n in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID") if n not in env]
    if missing:
        raise RankError(f"Slurm says {tasks} tasks but {', '.join(missing)} missing: start the ranks with srun")
    return {
        "RANK": env["SLURM_PROCID"], "WORLD_SIZE": tasks, "LOCAL_RANK": env["SLURM_LOCALID"],
        "MASTER_ADDR": first_host(env["SLURM_STEP_NODELIST"]), "MASTER_PORT": str(port_of_job(env["SLURM_JOB_ID"])),
    }


def first_host(nodelist: str) -> str:
    """First host of a Slurm node list: `gpu[003-007,9],login1` -> `gpu003`."""
    match = re.match(r"([^,\[]+)(?:\[([^,\]-]+))?", nodelist)
    if match is None:
        raise RankError(f"{nodelist!r} is not a Slurm node list")
    return match[1] + (match[2] or "")


def choose_device(wanted: str, env: Mapping[str, str], local_rank: int) -> torch.device:
    """The device of this rank.

    Args:
        wanted: auto, cuda or cpu.
        env: The process environment; says whether the job was given GPUs.
        local_rank: Index of the rank on its node.
    Raises:
        NoGpuError: A GPU was asked for or granted and torch sees none: never the CPU in silence.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    granted = env.get("SLURM_GPUS_ON_NODE") or env.get("SLURM_JOB_GPUS")
    if wanted == "cpu" or (wanted == "auto" and not visible and not granted):
        return torch.device("cpu")
    if not visible:
        why = f"Slurm granted GPUs ({granted})" if granted else "the device is cuda"
        raise NoGpuError(f"{why} but torch {torch.__version__} sees none: a CPU build of torch, or a driver that "
                         "does not fit (nvidia-smi); the CPU computes where it is asked for: --device cpu, or "
                         "--set train.device=cpu where a run is trained")
    if visible == 1:  # Slurm bound one GPU to each task, whose index is 0 for all of them
        return torch.device("cuda", 0)
    if local_rank >= visible:
        raise NoGpuError(f"local rank {local_rank} has no GPU: torch sees {visible}; start at most {visible} tasks per "
                         "node (--gpus-per-node)")
    return torch.device("cuda", local_rank)


def init(device: str = "auto") -> Ranks:
    """Join the other ranks.

    Args:
        device: auto, cuda or cpu (train.device).
    Raises:
        RankError: See `rank_env` and `choose_device`.
    """
    found = rank_env(os.environ)
    rank, world_size, local_rank = int(found["RANK"]), int(found["WORLD_SIZE"]), int(found["LOCAL_RANK"])
    chosen = choose_device(device, os.environ, local_rank)
    os.environ.update(found)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        os.environ["LOCAL_RANK"] = str(chosen.index)  # deepspeed calls set_device(LOCAL_RANK)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    store = torch_dist.HashStore() if world_size == 1 else None
    torch_dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=COLLECTIVE_TIMEOUT,
                                  init_method=None if store else "env://")
    return Ranks(rank, world_size, local_rank, chosen)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another rank is gone or unreachable, and not that this one did something wrong."""
    if isinstance(error, torch_dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "closed by peer"))


def close() -> None:
    """Leave the process group."""
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()

