"""Ranks as threads of one process: a stand-in for torch.distributed that counts what the real one would send, and a count of
what each rank asks of the file system.

Each thread is a rank. A collective waits until all ranks have called it and gives every one its result. What it would have
cost is counted for each rank after a model of the usual algorithms, N ranks, L = ceil(log2 N):

    broadcast of b bytes     L rounds along a binomial tree; its root sends b to L others, every other rank receives b
    all-reduce of b bytes    2 L rounds along a tree (up and down), 2 b sent by every rank
    all-gather of b bytes    N - 1 rounds around a ring, (N - 1) b sent by every rank
    barrier                  an all-reduce of 8 bytes

Objects travel as torch sends them: their size first, then their pickle; in an all-gather each as long as the longest. NCCL
also broadcasts around a ring, so that its rounds are N - 1, each of some microseconds, where L is written here.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import math
import os
import pickle
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

LOOKS = ("stat", "lstat", "scandir", "listdir", "readlink", "access")
CHANGES = ("mkdir", "rename", "replace", "link", "symlink", "unlink", "remove", "rmdir", "chmod", "utime", "truncate")
PATIENCE_S = 300.0  # of a rank for the others

_of_thread = threading.local()


class Account:
    """What ranks did, by phase.

    Attributes:
        counts: (phase, rank) -> what -> how often; `rounds`, `sent_bytes`, `looks`, `opens`, `changes`, `files` written.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)

    def add(self, what: str, number: int = 1) -> None:
        """Count for the rank of this thread; other threads are nobody's."""
        if (rank := getattr(_of_thread, "rank", None)) is not None:
            self.counts[_of_thread.phase, rank][what] += number

    def all(self, phase: str, what: str) -> int:
        """The sum over all ranks."""
        return sum(found[what] for (name, _), found in self.counts.items() if name == phase)

    def of(self, phase: str, rank: int, what: str) -> int:
        """What one rank did."""
        return self.counts[phase, rank][what]


def enter(phase: str) -> None:
    """From now on what this thread's rank does belongs to a phase."""
    _of_thread.phase = phase


def phase_here() -> str:
    """Of this thread."""
    return str(_of_thread.phase)


def rank_here() -> int:
    """Of this thread."""
    return int(_of_thread.rank)


class Distributed:
    """Stands where vidmae/ranks/dist.py has torch.distributed."""

    ReduceOp = SimpleNamespace(SUM="sum", MIN="min")
    DistError = torch.distributed.DistError

    def __init__(self, world_size: int, account: Account) -> None:
        self._n, self._account = world_size, account
        self._rounds = max(0, (world_size - 1).bit_length())
        self._given: list[Any] = [None] * world_size
        self._result: Any = None
        self._combine: Callable[[list[Any]], Any] | None = None
        self._meeting = threading.Barrier(world_size, action=self._meet)
        self.broken: BaseException | None = None

    def _meet(self) -> None:
        assert self._combine is not None
        self._result = self._combine(self._given)

    def _together(self, mine: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """What `combine` makes of what all ranks give; called once."""
        self._given[rank_here()], self._combine = mine, combine
        self._meeting.wait(PATIENCE_S)
        result = self._result
        self._meeting_over.wait(PATIENCE_S) if self._n > 1 else None
        return result

    @property
    def _meeting_over(self) -> threading.Barrier:
        """Nobody may give for the next collective before all have taken the result of this one."""
        return self.__dict__.setdefault("_over", threading.Barrier(self._n))

    def abort(self) -> None:
        """Let nobody wait for a rank that has failed."""
        self._meeting.abort()
        self._meeting_over.abort()

    def is_initialized(self) -> bool:
        """Asked at a rank's end."""
        return False

    def barrier(self) -> None:
        """All ranks meet."""
        self._sent(2 * self._rounds, 16)
        self._together(None, lambda _: None)

    def all_reduce(self, tensor: torch.Tensor, op: str = "sum") -> None:
        """The sum or the least of all ranks' tensors, in place."""
        self._sent(2 * self._rounds, 2 * tensor.nbytes)
        stacked = self._together(tensor, lambda all_of: (
            torch.stack(all_of).amin(0) if op == "min" else torch.stack(all_of).sum(0, dtype=tensor.dtype)))
        tensor.copy_(stacked)

    def broadcast_object_list(self, box: list[Any], src: int, device: Any) -> None:  # noqa: ARG002
        """Rank `src`'s objects on all ranks."""
        sends = rank_here() == src
        data = self._together(pickle.dumps(box) if sends else None, lambda all_of: all_of[src])
        self._sent(2 * self._rounds, (len(data) + 8) * (self._rounds if sends else 0))
        if not sends:
            box[:] = pickle.loads(data)

    def all_gather_object(self, box: list[Any], value: Any) -> None:
        """Every rank's object on all ranks."""
        parts = self._together(pickle.dumps(value), list)
        self._sent(2 * (self._n - 1), (self._n - 1) * (8 + max(map(len, parts))))
        box[:] = [pickle.loads(part) for part in parts]

    def _sent(self, rounds: int, sent_bytes: int) -> None:
        self._account.add("collectives")
        self._account.add("rounds", rounds)
        self._account.add("sent_bytes", sent_bytes)


class _OfRank(threading.Thread):
    """A thread that a rank has started works for that rank."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._rank, self._phase = getattr(_of_thread, "rank", None), getattr(_of_thread, "phase", "")

    def run(self) -> None:
        _of_thread.rank, _of_thread.phase = self._rank, self._phase
        super().run()


@contextlib.contextmanager
def counted_files(account: Account) -> Iterator[None]:
    """While it is entered, what ranks ask of the file system is counted, as long as Python's own functions ask for it."""
    def counting(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            account.add(what)
            return function(*args, **more)

        return call

    def opening(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: Any = "r", *args: Any, **more: Any) -> Any:
            writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(mode & (os.O_WRONLY | os.O_RDWR))
            if not isinstance(file, int):
                account.add("files" if writes else "opens")
            return function(file, mode, *args, **more)

        return call

    with contextlib.ExitStack() as stack:
        for name in (*LOOKS, *CHANGES):
            what = "looks" if name in LOOKS else "changes"
            stack.enter_context(mock.patch.object(os, name, counting(getattr(os, name), what)))
        for module, name in ((io, "open"), (builtins, "open"), (os, "open")):
            stack.enter_context(mock.patch.object(module, name, opening(getattr(module, name))))
        yield


def run_ranks_as_threads(world_size: int, act: Callable[[int], None], distributed: Distributed) -> None:
    """Call `act(rank)` in a thread of its own for each rank, and wait for all.

    Raises:
        AssertionError: A rank has failed, with its error as the cause.
    """
    problems: list[BaseException] = []

    def rank_of(rank: int) -> None:
        _of_thread.rank, _of_thread.phase = rank, "start"
        try:
            act(rank)
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            problems.append(error)
            distributed.abort()

    size = threading.stack_size(512 * 1024)
    threads = [threading.Thread(target=rank_of, args=(rank,)) for rank in range(world_size)]
    threading.stack_size(size)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise AssertionError(f"a rank failed: {problems[0]!r}") from problems[0]


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of the law value ~ size^exponent between the first size and the last; 0 where nothing grows."""
    if not values[0] or not values[-1] or sizes[0] == sizes[-1]:
        return 0.0
    return math.log(values[-1] / values[0]) / math.log(sizes[-1] / sizes[0])
