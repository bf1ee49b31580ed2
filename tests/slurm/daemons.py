"""Processes of the cluster, known by pid and time of birth: start, end, and find what runs on a node.

Nothing here goes by a process name alone: another Slurm on the same machine must not notice us.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # a user's PATH often lacks sbin
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # daemons that this process started, to reap them when they end


def daemon_env(folder: Path) -> dict[str, str]:
    """Give the environment of the daemons: little, so that a node does not depend on the shell that started it."""
    keep = {k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TZ", "TMPDIR")}
    # slurmdbd looks for slurmdbd.conf beside SLURM_CONF, so /etc/slurm is never touched
    return keep | {"PATH": SEARCH, "SLURM_CONF": str(folder / "slurm.conf")}


def launch(folder: Path, name: str, command: list[str]) -> bool:
    """Start a daemon in a session of its own, so that it outlives this process, and note its pid.

    Returns:
        False where it runs already, and nothing was done.
    """
    if read_pid(folder / "pid" / name):
        return False
    program = shutil.which(command[0], path=SEARCH)
    assert program, command
    with (folder / "log" / f"{name}.out").open("ab") as out:
        child = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=daemon_env(folder),
            cwd=folder,
            start_new_session=True,
        )
    _CHILDREN[child.pid] = child
    (folder / "pid" / name).write_text(f"{child.pid} {birth(child.pid)}\n")
    return True


def end(folder: Path, name: str, sig: signal.Signals) -> None:
    """End a daemon by the pid that was noted: with sig, and with SIGKILL when it takes too long."""
    file = folder / "pid" / name
    pid = read_pid(file)
    for attempt, seconds in ((sig, 15), (signal.SIGKILL, 15)):
        if pid is None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, attempt)
        with contextlib.suppress(RuntimeError):
            wait(lambda: read_pid(file) is None, seconds, f"the end of {name}", folder, name)
        pid = read_pid(file)
    if pid is not None:
        raise RuntimeError(f"{name} (pid {pid}) of {folder} does not end")
    file.unlink(missing_ok=True)


def kill_jobs(folder: Path, name: str) -> None:
    """Kill what runs on a node whose slurmd is gone; again until nothing is left, since a task may fork meanwhile."""

    def none_left() -> bool:
        found = job_processes(folder, name)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    wait(none_left, 15, f"the end of the jobs on {name}", folder, name)


def job_processes(folder: Path, name: str) -> set[int]:
    """Find a node's slurmstepds (they hold its log open), all below them, and tasks that lost their slurmstepd.

    A slurmstepd is no child of its slurmd and overwrites its own command line, hence the look at its open files.
    """
    log = str(folder / "log" / f"{name}.log")
    marks = {f"SLURMD_NODENAME={name}".encode(), f"SLURM_CONF={folder}/slurm.conf".encode()}
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(pid)
            if fields[0] in "ZX":
                continue
            parents[pid] = int(fields[1])
            proc = Path(f"/proc/{pid}")
            held = (str(fd.readlink()) for fd in (proc / "fd").iterdir())
            if marks <= set((proc / "environ").read_bytes().split(b"\0")) or (
                (proc / "exe").readlink().name.startswith("slurmstepd") and log in held
            ):
                found.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _stat(pid: int) -> list[str]:
    """Give the fields of /proc/PID/stat from the third (state) on; the second may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def birth(pid: int) -> int:
    """Give when a process began, in clock ticks since boot; with the pid it names one process for good."""
    return int(_stat(pid)[19])


def alive(pid: int, born: int) -> bool:
    """Say whether the process that had this pid and birth still runs; a zombie does not."""
    if child := _CHILDREN.get(pid):
        child.poll()
    with contextlib.suppress(OSError, IndexError):
        return birth(pid) == born and _stat(pid)[0] not in "ZX"
    return False


def read_pid(file: Path) -> int | None:
    """Give the pid that a file notes while that very process is alive."""
    with contextlib.suppress(OSError, ValueError):
        pid, born = (int(word) for word in file.read_text().split())
        return pid if alive(pid, born) else None
    return None


def _tails(folder: Path, name: str, lines: int = 12) -> Iterator[str]:
    for file in (folder / "log" / f"{name}.log", folder / "log" / f"{name}.out"):
        if file.is_file() and file.stat().st_size:
            yield "\n".join([f"--- {file}", *file.read_text(errors="replace").splitlines()[-lines:]])


def wait(check: Callable[[], bool], timeout_s: float, what: str, folder: Path, name: str) -> None:
    """Poll until the check holds.

    Args:
        check: What must become true.
        timeout_s: How long at most.
        what: Its name in the error.
        folder: The cluster's.
        name: The daemon whose log explains why the check does not hold; waiting ends with it.
    Raises:
        RuntimeError: time is up or the daemon has ended by itself; the message holds the ends of its logs.
    """
    deadline = time.monotonic() + timeout_s
    pid = folder / "pid" / name
    while not check():
        if pid.exists() and read_pid(pid) is None:
            raise RuntimeError("\n".join([f"{name} ended while waiting for {what}", *_tails(folder, name)]))
        if time.monotonic() > deadline:
            raise RuntimeError("\n".join([f"waited {timeout_s:g} s for {what} in vain", *_tails(folder, name)]))
        time.sleep(0.1)
