"""Where a rank stands once it hangs, in a file of its own: `stacks/rank_00005.txt` in the run folder. Stdlib only.

It is written shortly before the watchdog ends the rank, so that all ranks have written before the first one ends. A timer of
the kernel starts faulthandler's signal handler, which needs no interpreter lock: a rank that hangs in foreign code and holds
the lock writes, too. One that is stopped, or whose node is gone, does not, and that is how it is known. py-spy, where it is
installed, adds what foreign code each thread is in. Stacks hold paths, lines and names of code, and no values.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from vidmae.runs.nodes.left_out import node_name
from vidmae.runs.record import job_id, make_private_folder

LEAD_S, LEAD_SHARE = 5.0, 0.25  # before the limit, and of it at most
SPY_LIMIT_S, SPY_POLL_S = 3.0, 0.5


class StackFile:
    """The file of this rank, with one line about it until it hangs.

    Args:
        folder: Where those of all ranks are.
        rank: This one.
        world_size: How many there are; files of higher ranks, of an earlier attempt, are removed by rank 0.
    """

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        make_private_folder(folder)
        if rank == 0:
            for old in folder.glob("rank_*.txt"):
                if int(old.stem.partition("_")[2]) >= world_size:
                    old.unlink(missing_ok=True)
        self.path = folder / f"rank_{rank:05d}.txt"
        self._head = json.dumps({"rank": rank, "node": node_name(), "job_id": job_id(), "pid": os.getpid(),
                                 "main_thread": threading.main_thread().ident}).encode() + b"\n"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.write(self._file, self._head)
        self._due_s = math.inf
        faulthandler.register(signal.SIGALRM, file=self._file, all_threads=True)
        spy = Path(sys.executable).with_name("py-spy")  # one look: each folder of PATH may be on the network
        if spy.exists():
            threading.Thread(target=self._spy, args=(str(spy),), daemon=True).start()

    def expect_within(self, limit_s: float) -> None:
        """Write shortly before `limit_s` are over, unless it is told anew; 0 does not write. What was written is taken back:
        this rank goes on."""
        now_s, wait_s = time.monotonic(), limit_s - min(LEAD_S, LEAD_SHARE * limit_s)
        if now_s >= self._due_s:
            os.ftruncate(self._file, len(self._head))
        self._due_s = now_s + wait_s if limit_s > 0 else math.inf
        signal.setitimer(signal.ITIMER_REAL, wait_s)

    def close(self) -> None:
        """Remove the file, unless this rank has hung."""
        self._due_s = math.inf
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.unregister(signal.SIGALRM)
        if os.fstat(self._file).st_size == len(self._head):
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other ranks have theirs
                self.path.parent.rmdir()
        os.close(self._file)

    def _spy(self, spy: str) -> None:
        """Let py-spy add what it sees, once for each time that this rank hangs. Where it may not look, it says so."""
        seen_s = -math.inf
        while True:
            time.sleep(SPY_POLL_S)
            due_s = self._due_s
            if time.monotonic() < due_s or due_s == seen_s:
                continue
            seen_s = due_s
            command, written = [spy, "dump", "--native", "--pid", str(os.getpid())], os.fstat(self._file)
            try:
                done = subprocess.run(command, capture_output=True, timeout=SPY_LIMIT_S, stdin=subprocess.DEVNULL)
                os.write(self._file, b"\npy-spy:\n" + (done.stdout or done.stderr))
            except (OSError, subprocess.TimeoutExpired) as error:
                os.write(self._file, f"\npy-spy: {type(error).__name__}\n".encode())
            with contextlib.suppress(OSError):  # when this rank itself wrote
                os.utime(self._file, ns=(written.st_atime_ns, written.st_mtime_ns))
