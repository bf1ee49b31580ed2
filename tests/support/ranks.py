"""Start a test program as several ranks on this machine, the way torchrun does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
from typing import Any

from tests.support.started import AT_THE_START, Started

FIRST_PORT, PORTS = 2000, 8000  # below the ports of jobs and of the tests' Slurm, and of those that the kernel hands out
_tried = itertools.count(os.getpid() * 499)  # processes that test at the same time begin far from each other


def free_port() -> int:
    """A port that nobody listens on, and that nobody takes by chance until the ranks have started."""
    for number in _tried:
        port = FIRST_PORT + number % PORTS
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("", port))
            return port
    raise AssertionError("the count has no end")


def run_ranks(module: str, *args: str, world_size: int, timeout_s: float = 300) -> list[Any]:
    """Run `python -m module args` on every rank; the JSON of each rank's last line of output, in rank order.

    Raises:
        AssertionError: A rank exits with another code than 0; shows its stderr.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    env = {**clean, **AT_THE_START, "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [Started(module, *args, env={**env, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(world_size)]
    try:
        outputs = [process.communicate(timeout=timeout_s) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    failed = [f"rank {r} exit {p.returncode}\n{err[-3000:]}"
              for r, (p, (_, err)) in enumerate(zip(ranks, outputs, strict=True)) if p.returncode]
    assert not failed, "\n".join(failed)
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]
