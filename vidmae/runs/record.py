"""The run folder as a contract: its paths, its small JSON records, atomic writes and the one-writer lock. Stdlib only.

    runs/<name>-<signature8>/
      config.yaml      resolved configuration            run.json        identity, code state, submissions
      code/            the snapshot that was submitted   submit/<jobid>/ batch script and logs of each job
      metrics.jsonl    one JSON object per step          tensorboard/    the same as curves
      quarantine.csv   videos that were replaced
      heartbeat.json   last sign of life                 failure.json    why the last attempt failed
      attempts.json    where its seconds went            nonfinite.jsonl data left out after NaN or infinity
      checks.jsonl     what nodes measured of themselves left_out.jsonl  nodes that the run stays off
      slow.json        who holds up the others now       hang.txt        where the ranks stood when it last hung
      checkpoints/step_00012000/{..., COMPLETE}          lock.json       the job that writes here now
      weights.safetensors                                result.json     exists <=> the run is done
      report.html      a page about it, on demand        analysis/       what was found out about the model later
      conditions/      predictions under conditions      cues.npz        textures of images whose label is a shape

Lock and atomic writes stay by hand, 128 lines. filelock 4.3: SoftFileLock waits for ever for a dead holder on another node;
SoftFileLease takes over only after it has watched for the whole lease (10.0 s for one of 10 s; here 1 s for a holder that
was silent for 10 minutes), beats from a thread even where the training hangs, and does not know a requeued job from another
one (here 1 s). portalocker takes flock, which says nothing of the holder and which Lustre has only where it is mounted with
it. atomicwrites always flushes the disk: 6.4 ms a file; here 6.7 ms flushed, 0.2 ms where that is not asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

SCHEMA = 1
COMPLETE = "COMPLETE"  # of a checkpoint: written last, with size and hash of every file
STEPS = f"step_{8 * '[0-9]'}"  # folders of checkpoints, and none that somebody has renamed
CANCELLED = "cancelled"  # submit/<jobid>/cancelled: a person wants it to end; with content: at once, without saving
LOST = "lost"  # kind of a failure that another attempt may not meet: a rank or its node is gone
STALE_LOCK_S = 600.0
TAKEOVER_SETTLE_S = 1.0
FIRST_PORT, PORTS = 10000, 20000  # below the ports that Linux gives to outgoing connections (32768 and up)


class RunLockedError(RuntimeError):
    """Another live job writes to the run folder."""


def draft_of(path: Path) -> Path:
    """Where this process writes a file before it takes its name. Processes of two nodes may have the same number, so the
    host counts, too: as six hex digits, since names of figures may be nearly as long as a file system allows."""
    return path.with_name(f".{path.name}.{os.getpid()}-{_host_digits(socket.gethostname())}.tmp")


@cache
def _host_digits(host: str) -> str:
    return hashlib.blake2b(host.encode(), digest_size=3).hexdigest()


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file so that readers see the old or the new content, never a part.

    Args:
        path: The file.
        data: Its content.
        mode: Its permissions.
        durable: Also after a power cut, which costs two disk flushes; not worth it for what can be written again.
    """
    tmp = draft_of(path)
    try:
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb", buffering=0) as f:
            rest = memoryview(data)
            while rest:
                rest = rest[f.write(rest):]
            if durable:
                os.fsync(fd)
        tmp.replace(path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: Path, record: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write one JSON object atomically. NaN and infinity are refused: they are not JSON."""
    write_atomic(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode(), durable=durable)


def totals_of_data(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Totals of a run's manifest, from the JSON beside it; nothing where that is gone or has changed since.

    Args:
        record: The run's run.json.
    """
    try:
        totals = read_json(Path(record["manifest"]).with_suffix(".json")) or {}
    except (KeyError, TypeError, ValueError, OSError):
        return {}
    return totals if totals.get("content_sha256") == record.get("content_sha256") else {}


def read_json(path: Path) -> dict[str, Any] | None:
    """One JSON object, or None where there is no such file.

    Raises:
        ValueError: The file holds something else; the message names it.
    """
    try:
        record = json.loads(path.read_bytes().decode("utf-8"))  # twice as quick as read_text
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it holds {type(record).__name__}, not an object")
    return record


def make_private_folder(path: Path) -> Path:
    """Create a folder (and its parents) that only its owner can enter: footage and what comes of it is private."""
    if not path.is_dir():
        if path.parent != path:
            make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def is_private_folder(path: Path) -> bool:
    """Whether a folder is there that belongs to this user and that nobody else can enter; a link to one is none."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def folder_of_user(place: Path) -> Path:
    """Where this user's copies are on a disk or in the memory of a node, which others use, too."""
    return place / f"vidmae-{os.getuid()}"


def why_not_writable(folder: Path) -> str:
    """Why a folder takes no more files, in the system's words; empty where it does. It is tried."""
    probe = folder / f".writable.{socket.gethostname()}.{os.getpid()}.json"
    try:
        write_json(probe, {})
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def signature(kind: str, signed: Mapping[str, Any], data_sha256: str) -> str:
    """Eight hex digits that name an experiment: equal exactly where kind, signed settings and data are equal.

    Args:
        kind: What is run, such as `pretrain`.
        signed: The configuration without what does not change the experiment (`layers.to_dict(signed_only=True)`).
        data_sha256: Hash of the manifest's content.
    """
    return signature_of_text(kind, json.dumps(signed, sort_keys=True, separators=(",", ":")), data_sha256)


def signature_of_text(kind: str, signed: str, data_sha256: str) -> str:
    """The same where the settings are a text already: JSON with sorted keys and without spaces."""
    text = f"[{json.dumps(kind)},{signed},{json.dumps(data_sha256)}]"
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def runs_that_fit(given: str, run_ids: Sequence[str]) -> list[str]:
    """The runs that a user may mean by the start of a name.

    The run of that id; else those of that name without its signature, since cells of a sweep begin with the name of their
    run; else all that begin so.
    """
    return ([name for name in run_ids if name == given] or [name for name in run_ids if name.rpartition("-")[0] == given]
            or [name for name in run_ids if name.startswith(given)])


@dataclass(frozen=True)
class RunFolder:
    """The paths inside one run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """Identity of the run and its submissions."""
        return self.path / "run.json"

    @property
    def code(self) -> Path:
        """Snapshot of the code that runs."""
        return self.path / "code"

    @property
    def submit(self) -> Path:
        """One folder per job: batch script, pickled call, logs."""
        return self.path / "submit"

    @property
    def metrics(self) -> Path:
        """One JSON object per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def precision(self) -> Path:
        """What train.precision auto was where the run began."""
        return self.path / "precision.json"

    @property
    def choices(self) -> Path:
        """What was chosen for the device where the run began: compile, micro-batch, attention kernel."""
        return self.path / "choices.json"

    @property
    def profile(self) -> Path:
        """What torch's profiler recorded of some steps (log.profile_steps)."""
        return self.path / "profile"

    @property
    def quarantine(self) -> Path:
        """The videos that could not be read and were replaced, by row."""
        return self.path / "quarantine.csv"

    @property
    def tracker(self) -> Path:
        """Files of a tracker of experiments."""
        return self.path / "tracker"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def heartbeat(self) -> Path:
        """Where the run stood at its last sign of life."""
        return self.path / "heartbeat.json"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed; removed when a new attempt starts."""
        return self.path / "failure.json"

    @property
    def attempts(self) -> Path:
        """Where the seconds of each attempt went."""
        return self.path / "attempts.json"

    @property
    def nonfinite(self) -> Path:
        """Windows of data that are left out, one JSON object a line."""
        return self.path / "nonfinite.jsonl"

    @property
    def left_out(self) -> Path:
        """Nodes that the run stays off, one JSON object a line."""
        return self.path / "left_out.jsonl"

    @property
    def checks(self) -> Path:
        """What the nodes measured of themselves before the first step, one JSON object for each start."""
        return self.path / "checks.jsonl"

    @property
    def slow(self) -> Path:
        """Who holds up the other ranks now."""
        return self.path / "slow.json"

    @property
    def stacks(self) -> Path:
        """Folder of a file for each rank of several, into which it writes where it stands once it hangs."""
        return self.path / "stacks"

    @property
    def hang(self) -> Path:
        """Where all ranks stood when the run last hung, and which of them did not come."""
        return self.path / "hang.txt"

    @property
    def evaluations(self) -> Path:
        """Looks at a model between two steps, one JSON object a line."""
        return self.path / "evaluations.jsonl"

    @property
    def looks(self) -> Path:
        """Weights that a look may yet choose."""
        return self.path / "looks"

    @property
    def predictions(self) -> Path:
        """What a finetuned model or a probe says of every validation clip."""
        return self.path / "predictions.npz"

    @property
    def conditions(self) -> Path:
        """Folder of what a model says of every clip under each condition."""
        return self.path / "conditions"

    @property
    def cues(self) -> Path:
        """Texture of each image that has the shape of one class and the texture of another."""
        return self.path / "cues.npz"

    @property
    def records(self) -> tuple[Path, ...]:
        """Files that belong to the state of a run: a checkpoint holds them as they were at its step."""
        return self.metrics, self.quarantine, self.evaluations

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    def complete_checkpoints(self) -> dict[int, Path]:
        """Step -> folder of the checkpoints that have their marker."""
        return {int(marker.parent.name.removeprefix("step_")): marker.parent
                for marker in self.checkpoints.glob(f"{STEPS}/{COMPLETE}")}

    @property
    def lock(self) -> Path:
        """The job that writes here now."""
        return self.path / "lock.json"

    @property
    def weights(self) -> Path:
        """Consolidated float32 weights under the released key names."""
        return self.path / "weights.safetensors"

    @property
    def picture(self) -> Path:
        """Masked input, reconstruction and original of a few clips, where the recipe asks for it."""
        return self.path / "reconstruction.png"

    @property
    def result(self) -> Path:
        """Exists exactly when the run is done."""
        return self.path / "result.json"


def job_id() -> str:
    """Id of the job that this process belongs to: Slurm's, else the one the launcher gave, else this process.

    A task of an array is `<array>_<task>`, the form that squeue, scontrol, scancel and sacct take.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("VIDMAE_JOB_ID") or f"pid{os.getpid()}"


def port_of_job(of_job: str) -> int:
    """The rendezvous port that follows from a job's id, so that two jobs on one node do not meet: 10000 to 29999."""
    return FIRST_PORT + int(re.sub(r"\D", "", of_job) or 0) % PORTS


def touch_heartbeat(run: RunFolder, **progress: Any) -> None:
    """Leave a sign of life with the progress made so far."""
    write_json(run.heartbeat, {"schema": SCHEMA, "job_id": job_id(), "host": socket.gethostname(),
                               "time": time.time(), **progress})


def locked(run: RunFolder) -> AbstractContextManager[None]:
    """Hold the run folder's lock: one job writes at a time; its signs of life are the lock and the heartbeat. See `held`.

    Raises:
        RunLockedError: Another job holds it; the message names the job, its host and its last sign of life.
    """
    return held(run.lock, heartbeat=run.heartbeat, what=f"{run.path} is being written",
                remedy=f"wait for it, or stop it: python jobs/cancel.py {run.path}")


@contextmanager
def held(lock: Path, *, heartbeat: Path, what: str, remedy: str) -> Iterator[None]:
    """Hold a lock file, as one job of all.

    The lock appears whole or not at all (a hard link of a finished file), on shared file systems too. A lock of the same
    job (requeued by Slurm), of a dead process of this host, or with no sign of life for 10 minutes is taken over.

    Args:
        lock: The file.
        heartbeat: A file that the holder touches as a sign of life; may be the lock itself.
        what: What the holder does, for the message: `X is being written`.
        remedy: What would do, for the message.
    Raises:
        RunLockedError: Another job holds it; the message names the job, its host and its last sign of life.
    """
    mine = {"schema": SCHEMA, "job_id": job_id(), "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    draft = lock.with_name(f".lock.{socket.gethostname()}.{os.getpid()}.json")
    refuse_if_alive = partial(_refuse_if_alive, lock, heartbeat, what, remedy)
    write_json(draft, mine)
    try:
        while not _linked(draft, lock):
            if refuse_if_alive():
                draft.replace(lock)
                time.sleep(TAKEOVER_SETTLE_S)  # of several that take over at once, the last one's lock stays
                break
        if read_json(lock) != mine:
            refuse_if_alive()
            raise RunLockedError(f"{lock} was taken by another job at the same moment; start again in a minute")
    finally:
        draft.unlink(missing_ok=True)
    try:
        yield
    finally:
        if read_json(lock) == mine:
            lock.unlink()


def _linked(draft: Path, lock: Path) -> bool:
    try:
        os.link(draft, lock)
    except FileExistsError:
        return False
    return True


def _refuse_if_alive(lock: Path, heartbeat: Path, what: str, remedy: str) -> bool:
    """True where the lock is a dead job's, False where it was given back meanwhile: whoever links first has it then."""
    holder = read_json(lock)
    if holder is None:
        return False
    age_s = time.time() - max(float(holder["time"]), _mtime(heartbeat))
    if _alive(holder, age_s):
        raise RunLockedError(f"{what} by job {holder['job_id']} (host {holder['host']}, pid {holder['pid']}, last sign of "
                             f"life {age_s:.0f} s ago); {remedy}")
    return True


def _alive(holder: Mapping[str, Any], age_s: float) -> bool:
    if holder["job_id"] == job_id() and holder["pid"] != os.getpid():
        return False  # our own earlier attempt: Slurm starts a requeued job only after the last one has ended
    if holder["host"] == socket.gethostname() and not _process_exists(int(holder["pid"])):
        return False
    return age_s < STALE_LOCK_S


def _process_exists(pid: int) -> bool:
    """Whether a process lives. One that was killed and that nobody has waited for yet, as in a container whose first
    process does not, writes no more."""
    with suppress(OSError):  # not every system has /proc
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
