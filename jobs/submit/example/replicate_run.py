"""Carry out the steps of a replication: each once, with its cost, and on again where an earlier call was stopped.

    OUT/steps/NAME.json, OUT/seed-0/steps/NAME.json     a step that is done: its words, what it printed, seconds
    OUT/seed-0/steps/NAME.log                           what it said to people

CPU time is that of all processes of a step. Arrays and jobs on this machine outlive the command that starts them, so this
process adopts them (Linux: prctl PR_SET_CHILD_SUBREAPER) and takes their time from the kernel when they end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.submit.example.replicate_plan import Step
from vidmae.runs.record import make_private_folder, read_json, write_json

ROOT = Path(__file__).resolve().parents[3]
SET_CHILD_SUBREAPER = 36  # prctl's option, see linux/prctl.h
LATE_S = 20.0  # a job's own process ends this long after its command at most; later its seconds are not counted
LOOK_S = 0.05


class StepError(RuntimeError):
    """A step failed; the message names it and its log."""


class Family:
    """The processes that this one starts, and those that these leave behind; it waits for them all.

    Nothing else in this process may wait for children: they are waited for in a thread of this class.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # another system: what outlives its command is not counted
            ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._ended: dict[int, tuple[int, float]] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
                assert ended is not None
                with self._changed:  # the system may give its number to a new process from here on
                    pid, status, usage = os.wait4(ended.si_pid, 0)
                    self._ended[pid] = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
                    self._changed.notify_all()
            except ChildProcessError:  # there is none, or Popen has waited for one that could not start its program
                time.sleep(LOOK_S)

    def run(self, words: Sequence[str], folder: Path, out: Path, log: Path) -> tuple[int, float]:
        """Start a program and wait for it; its exit code and CPU seconds, its waited-for children included."""
        with self._changed:
            with out.open("wb") as to_out, log.open("ab") as to_log:
                process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_log)
            self._ended.pop(process.pid, None)  # of an earlier process that had the same number
            self._changed.wait_for(lambda: process.pid in self._ended)
            process.returncode, spent = self._ended.pop(process.pid)
        return process.returncode, spent

    def spent_by(self, pid: int) -> float:
        """CPU seconds of an adopted process, which may still be about to end; 0 where it is none of ours."""
        with self._changed:
            if late := Path(f"/proc/{pid}").exists():
                self._ended.pop(pid, None)
            self._changed.wait_for(lambda: pid in self._ended, timeout=LATE_S if late else 0)
            return self._ended.pop(pid, (0, 0.0))[1]


class Runner:
    """Runs steps in a folder.

    Args:
        out: Folder of the replication, in which commands run.
        family: Of this process.
    """

    def __init__(self, out: Path, family: Family) -> None:
        self.out, self.family = out, family

    def do(self, step: Step, of: Path, models: dict[str, str]) -> None:
        """Run a step unless it is done.

        Args:
            step: What to run.
            of: The folder that keeps its record: OUT, or OUT/seed-N.
            models: Role to run folder of the same seed; a step that pretrains adds its own.
        Raises:
            StepError: It failed.
        """
        words = [re.sub(r"\{(\w[\w.]*)\}", lambda role: models[role[1]], word) for word in step.words]
        folder = make_private_folder(of / "steps")
        record = read_json(folder / f"{step.name}.json")
        if record is None or record["words"] != words:
            record = self._run(step, words, folder)
        if step.role:
            models.update(_models(step.role, record["printed"]))

    def _run(self, step: Step, words: Sequence[str], folder: Path) -> dict[str, Any]:
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
        print(f"$ {shown(words, self.out)}", file=sys.stderr, flush=True)
        printed, log, began = folder / f"{step.name}.out", folder / f"{step.name}.log", time.time()
        code, spent = self.family.run(command, self.out, printed, log)
        text = printed.read_text()
        if code:
            last = log.read_text(errors="replace").splitlines()[-8:]
            raise StepError("\n".join([f"step {step.name} ended with exit code {code}; log {log}", *last]))
        record = {"words": list(words), "printed": text, "wall_s": time.time() - began, "claims": list(step.claims),
                  "cpu_s": spent + sum(self.family.spent_by(pid) for pid in jobs_of(text)), "name": step.name}
        write_json(folder / f"{step.name}.json", record)
        return record


def shown(words: Sequence[str], out: Path) -> str:
    """A command as one would type it in the folder `out`."""
    return shlex.join(["python", os.path.relpath(ROOT / words[0], out), *words[1:]])


def _models(role: str, printed: str) -> Mapping[str, str]:
    """The run folders that a command names in the JSON of its last line."""
    said = json.loads(printed.splitlines()[-1])
    if role == "pair":
        return {"video": said["video"]["run"], "image": said["image"]["run"]}
    return {role: Path(said["run"]).name}


def jobs_of(printed: str) -> list[int]:
    """The ids of jobs and arrays on this machine that a command printed; they are those of processes."""
    found: list[int] = []
    for line in printed.splitlines():
        if line.isdecimal():
            found.append(int(line))
        elif line.startswith("{"):
            said = json.loads(line)
            found += [int(job) for job in (*(said.get("jobs") or ()), said.get("job_id")) if str(job).isdecimal()]
    return found
