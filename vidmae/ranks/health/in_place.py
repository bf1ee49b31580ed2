"""Starts all ranks again on the nodes that a job has, when one of them is killed, loses another or hangs.

    task of Slurm --> agent: has loaded torch and deepspeed, computes nothing --fork--> rank: trains
      rank 1 is killed             its agent judges, says why, and waits for the next round
      the agents of the others     see in a moment that somebody waits, kill their ranks and come, too
      all agents are there         each forks its rank anew, which goes on from the newest checkpoint

The agents are torch's (torch.distributed.elastic). Slurm has fixed who is which rank and how many there are, so of a
rendezvous only "all are here" is left: a count in torch's store. torch's own c10d rendezvous also elects members and numbers
them anew; it asks once a second, and each member exchanges a list of all with the store. What that costs grows with the
square (64 agents in threads: 3.2 s of CPU time; 1,024 agents with a count: 0.8 s; 29 November 2026, a busy Intel Xeon).
NVIDIA's resiliency extension restarts inside of the processes that are left; one that was killed does not come back by it,
and ZeRO needs its part of the state.

What a restart costs is new processes (forked, without imports), on a GPU also a new CUDA context and new communicators; what
is kept is the allocation, the libraries in memory, and files in /dev/shm.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsDest, LogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from vidmae.footage.killable import end_with_parent
from vidmae.ranks import preempt, watchdog
from vidmae.ranks.health.hang_report import report_hang
from vidmae.runs.attempts import RESTARTED
from vidmae.runs.record import RunFolder, job_id, read_json
from vidmae.settings.keeping_config import RecoveryConfig
from vidmae.settings.signals import number_of

LOOK_S = 0.1  # between two looks at the rank
ASKS_PER_S = 2000.0  # of all agents together, at the store of the first
AGAIN_LIMIT_S = 120.0  # within which all agents come to a restart; their ranks are killed, and the kernel frees their memory
END_LIMIT_S = 60.0  # within which the ranks end after the first one that is done
INTERRUPTED = 128 + signal.SIGINT
FOR_EVER_S = 10.0 * 365 * 86400
OWN = {  # of torch's agents
    "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGQUIT",  # what the job's signals mean is said below
    "TORCH_ELASTIC_WORKER_IDENTICAL": "1",  # each agent has one rank
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # else a question of deepspeed's starts CUDA here, which no fork survives
}


@dataclass(frozen=True)
class Watched:
    """What an agent watches.

    Attributes:
        program: Module whose `main(run_path)` is the rank's program and returns its exit code, and whose
            `load_before_fork(device_type)` imports what that loads late.
        run: The run folder.
        recovery: The run's section.
        device_type: cpu, or cuda.
    """

    program: str
    run: RunFolder
    recovery: RecoveryConfig
    device_type: str


def watch(what: Watched, worth: Callable[[int], bool]) -> int:
    """Be the agent of this task's rank, whom the environment names (RANK, WORLD_SIZE, MASTER_ADDR ...).

    Args:
        what: What is watched.
        worth: Told the exit code of a rank that has failed, 128 + the number of a signal that killed it; whether a restart
            may help.
    Returns:
        The exit code of the rank's last start, or that of a rank that is not started again.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for quiet in ("agent.server.api", "multiprocessing.api"):  # they show where they themselves noticed the end of a rank
        logging.getLogger(f"torch.distributed.elastic.{quiet}").setLevel(logging.CRITICAL)
    os.environ.update(OWN)
    try:
        importlib.import_module(what.program).load_before_fork(what.device_type)
    except Exception:  # the rank imports it again, and records why that fails
        traceback.print_exc()
    rounds = Rounds(rank, world_size, limit_s=what.recovery.start_limit_s or FOR_EVER_S,
                    between=lambda: _say_who_hung(what.run))
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    spec = WorkerSpec(
        role="rank", local_world_size=1, rdzv_handler=rounds, entrypoint=_be_rank,
        args=(what.program, str(what.run.path), what.recovery.signals, {name: os.environ[name] for name in names}),
        max_restarts=1, monitor_interval=rounds.look_s)
    agent = Agent(spec, what, rounds, worth)
    try:
        return agent.code_of(agent.run())
    except (NotAllHereError, torch_dist.DistError) as error:
        print(f"error: rank {rank}: not all ranks came to their start {rounds.number} in this job: {error}", flush=True)
        return agent.code or 1


@contextmanager
def _answers_within(limit_s: float) -> Iterator[None]:
    """End this process where the agents' store does not answer in time: a call to it waits for ever for a frozen agent 0."""
    watchdog.expect_within(limit_s)
    try:
        yield
    finally:
        watchdog.expect_within(0)


class NotAllHereError(RuntimeError):
    """Not all agents have come to a start."""


class Rounds(RendezvousHandler):
    """Where the agents of a job wait for each other before each start of the ranks.

    Rank 0's agent keeps the store of the agents, and for each start a new one in which its ranks find each other: one that
    listens before any rank asks.

    Args:
        rank: Of this agent's rank.
        world_size: Agents.
        limit_s: Within which all come to the first start.
        between: Called on rank 0's agent before each later start, while no rank of the job lives.
    Attributes:
        number: Of the newest start, from 1.
        look_s: Seconds between two questions to the store.
    """

    def __init__(self, rank: int, world_size: int, *, limit_s: float, between: Callable[[], None] = lambda: None) -> None:
        self._rank, self._world_size, self._limit_s, self._between = rank, world_size, limit_s, between
        self._address = os.environ["MASTER_ADDR"]
        self._store: Any = None
        self._of_ranks: Any = None
        self.number = 0
        self.look_s = max(LOOK_S, world_size / ASKS_PER_S)

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait until all agents are here."""
        with _answers_within(AGAIN_LIMIT_S + (self._limit_s if self._store is None else AGAIN_LIMIT_S)):
            return self._meet()

    def _meet(self) -> RendezvousInfo:
        first = self._store is None
        if first:
            self._store = torch_dist.HashStore() if self._world_size == 1 else torch_dist.TCPStore(
                self._address, int(os.environ["MASTER_PORT"]), self._world_size, self._rank == 0,
                timedelta(seconds=self._limit_s))
        self.number += 1
        key, ends = f"here/{self.number}", time.monotonic() + (self._limit_s if first else AGAIN_LIMIT_S)
        self._store.add(key, 1)
        while (here := self._store.add(key, 0)) < self._world_size:
            if time.monotonic() > ends or (preempt.received() and not first):  # the job ends meanwhile
                raise NotAllHereError(f"{here} of {self._world_size} are here" + (
                    f", and {preempt.received()} ends the job" if preempt.received() else ""))
            time.sleep(self.look_s)
        store = torch_dist.PrefixStore(f"round/{self.number}", self._store)
        if self._rank == 0:
            if not first:
                self._between()  # the others wait for the port
            self._of_ranks = torch_dist.TCPStore(self._address, 0, is_master=True, wait_for_workers=False)
        port = self._of_ranks.port if self._rank == 0 else None
        where = RendezvousStoreInfo.build(self._rank, store, local_addr=self._address, server_port=port)
        return RendezvousInfo(store, self._rank, self._world_size, where)

    def num_nodes_waiting(self) -> int:
        """How many agents wait for the next start; 0 where the store is gone: then the job ends."""
        with suppress(RuntimeError), _answers_within(AGAIN_LIMIT_S):
            return int(self._store.add(f"here/{self.number + 1}", 0))
        return 0

    def say_why(self, reason: str) -> None:
        """Say why there is a next start; the first who does is heard."""
        with _answers_within(AGAIN_LIMIT_S):
            self._store.compare_set(f"why/{self.number + 1}", "", reason)

    @property
    def why(self) -> str:
        """Why there is this start; empty for the first."""
        with _answers_within(AGAIN_LIMIT_S):
            return self._store.get(f"why/{self.number}").decode() if self.number > 1 else ""

    @property
    def use_agent_store(self) -> bool:
        """The ranks use the agent's store."""
        return True

    def get_backend(self) -> str:
        """A name."""
        return "all ranks"

    def get_run_id(self) -> str:
        """A name."""
        return os.environ.get("VIDMAE_JOB_ID", "job")

    def is_closed(self) -> bool:
        """Never: who leaves ends the job."""
        return False

    def set_closed(self) -> None:
        """Nothing."""

    def shutdown(self) -> bool:
        """Nothing: the store ends with its process."""
        return True


class Agent(LocalElasticAgent):
    """torch's agent with one rank, which judges before it restarts and hands the job's signals on.

    Args:
        spec: The rank.
        what: What is watched.
        rounds: `spec.rdzv_handler`.
        worth: See `watch`.
    Attributes:
        code: Exit code of a rank that has failed, as `worth` gets it; 0 before.
    """

    def __init__(self, spec: WorkerSpec, what: Watched, rounds: Rounds, worth: Callable[[int], bool]) -> None:
        super().__init__(spec, _OwnStreams(), start_method=start_method(what.device_type), exit_barrier_timeout=END_LIMIT_S)
        self._what, self._rounds, self._worth = what, rounds, worth
        self._rank, self._pid = int(os.environ["RANK"]), os.getpid()
        self._child = self._last_child = 0
        self.code = 0
        preempt.listen(what.recovery.signals, self._pass_on)

    def code_of(self, result: RunResult) -> int:
        """The exit code of the rank that a result is about."""
        if result.state is not WorkerState.FAILED:
            return int(next(iter(result.return_values.values())))
        (failure,) = result.failures.values()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state is not WorkerState.HEALTHY:
            self._child = 0
        if result.state is WorkerState.FAILED:
            self.code = self.code_of(result)
            again = (self._rounds.number <= self._what.recovery.restarts_in_place and not preempt.received()
                     and self._worth(self.code))
            if again:
                how = f"was killed by signal {self.code - 128}" if self.code > 128 else f"left with exit code {self.code}"
                self._rounds.say_why(f"rank {self._rank} {how}")
            self._remaining_restarts = int(again)
        return result

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        if self._rounds.number > 1:
            os.environ[RESTARTED] = self._rounds.why
            print(f"{self._rounds.why}: all ranks start again in place ({self._rounds.number - 1} of "
                  f"{self._what.recovery.restarts_in_place} times), from the newest checkpoint", flush=True)
            if self._rank == 0:
                _release_lock(self._what.run, self._last_child)
        with preempt.held(self._what.recovery.signals):
            started: dict[int, Any] = super()._start_workers(worker_group)
        self._child = self._last_child = int(started[0])
        if name := preempt.received():
            self._pass_on(number_of(name))
        return started

    def _shutdown(self, death_sig: signal.Signals = signal.SIGKILL, *more: Any, **named: Any) -> None:  # noqa: ARG002
        """A rank whose peers are gone can save nothing: it is killed."""
        self._child = 0
        super()._shutdown(signal.SIGKILL, *more, **named)

    def _pass_on(self, number: int) -> None:
        if self._child and os.getpid() == self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)


class _OwnStreams(LogsSpecs):
    """The rank prints where its agent prints."""

    def reify(self, envs: dict[int, dict[str, str]]) -> LogsDest:
        """Where its output goes."""
        same = dict.fromkeys(envs, "")
        for env in envs.values():
            env["TORCHELASTIC_ERROR_FILE"] = ""
        return LogsDest(same, same, {}, {}, dict.fromkeys(envs, os.devnull))

    @property
    def root_log_dir(self) -> str:
        """None."""
        return ""


def device_type(asked: str) -> str:
    """What the ranks will compute on, found without starting CUDA in this process.

    Args:
        asked: auto, cuda or cpu (train.device).
    """
    if asked == "cpu" or os.environ.get("DS_ACCELERATOR") == "cpu":
        return "cpu"
    return "cuda" if torch.cuda.device_count() else "cpu"


def start_method(device_type: str) -> str:
    """How an agent starts its rank: forked, or where CUDA would not survive that as a new Python, which imports anew."""
    if device_type == "cpu":
        return "fork"
    probe = os.fork()
    if not probe:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    spoilt = os.waitpid(probe, 0)[1] != 0
    if spoilt:
        print("CUDA is in use before the ranks are forked: each start of them imports everything anew", flush=True)
    return "spawn" if spoilt else "fork"


def _be_rank(program: str, run_path: str, signals: tuple[str, ...], names: Mapping[str, str]) -> int:
    """In the rank's process: its program. An exit code after which nobody restarts is returned, others end the process."""
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_") or name in OWN]:
        del os.environ[name]  # to torch it is as if it had been started by itself, but for the store
    os.environ.update(names, TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    end_with_parent()
    preempt.listen(signals)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number_of(name) for name in signals])
    try:
        code = int(importlib.import_module(program).main(run_path))
    except BaseException as error:  # of a KeyboardInterrupt torch makes exit 0 without the value that the agent waits for
        traceback.print_exc()
        watchdog.end_process(1 if isinstance(error, Exception) else INTERRUPTED)
    if code not in (0, preempt.EXIT_PREEMPTED):
        watchdog.end_process(code)
    multiprocessing.util.Finalize(None, watchdog.end_process, args=(0,), exitpriority=100)  # once torch has the code
    return code


def _say_who_hung(run: RunFolder) -> None:
    with suppress(OSError):  # the disk is full: the logs have the stacks
        if sentence := report_hang(run, job_id()):
            print(sentence, flush=True)


def _release_lock(run: RunFolder, pid: int) -> None:
    """Remove the lock that this agent's own rank has left: nobody must wait to learn that it is dead."""
    with suppress(ValueError):
        holder = read_json(run.lock) or {}
        if (holder.get("pid"), holder.get("host")) == (pid, socket.gethostname()):
            run.lock.unlink(missing_ok=True)
