"""A real Slurm cluster on one machine, under one folder: munge, MariaDB, slurmdbd, slurmctld and pretend nodes.

    eval "$(python tests/slurm/cluster.py start)"      # sets SLURM_CONF; then sinfo, sbatch, srun, sacct just work
    python tests/slurm/cluster.py status
    python tests/slurm/cluster.py stop

A node is a slurmd process with a name (cn1 ...), a loopback address (127.0.1.1 ...) and a port of its own; its GPUs
are null devices, so Slurm grants them and sets CUDA_VISIBLE_DEVICES as on a cluster. Configuration, keys, sockets,
state and logs all lie in the folder, and nothing in /etc/slurm or /etc/munge is read or written. The one change
outside is a tagged line per node in /etc/hosts, which stays: jobs look MASTER_ADDR up by node name.

Needs root, Linux and Debian's packages (tests/slurm/install.sh); standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # started as a script, which puts its own folder on the path instead of the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.slurm.daemons import SEARCH, alive, birth, daemon_env, end, kill_jobs, launch, read_pid, wait
from tests.slurm.settings import Unavailable, name_nodes, write

__all__ = ["Cluster", "Unavailable", "default_folder", "load", "missing", "start", "status", "stop", "sweep"]

MARKER = "cluster.json"  # a folder that holds it was made by this script
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "srun", "sbatch", "sacct")


@dataclass(frozen=True)
class Cluster:
    """A running cluster; everything it knows lies in its folder, so any process may load it."""

    folder: Path
    nodes: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that point every Slurm command at this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def pids(self) -> dict[str, int]:
        """Daemons that are alive: name -> pid."""
        return {file.name: pid for file in sorted((self.folder / "pid").glob("*")) if (pid := read_pid(file))}

    def run(self, *args: str, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command against this cluster, as from a shell that is in no job.

        Raises:
            RuntimeError: it failed and `check` is set; the message holds its output.
            subprocess.TimeoutExpired: it took longer than timeout_s.
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SLURMD_", "SBATCH_", "SRUN_"))}
        done = subprocess.run(
            args, env=env | self.env, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(args)} exited {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def node_state(self, name: str) -> str:
        """Give a node's state as `scontrol` writes it, e.g. `IDLE`, `MIXED+NOT_RESPONDING`, `IDLE+DRAIN`."""
        return self._show_node(name)["State"]

    def wait_node(self, name: str, *, up: bool, timeout_s: float = 90) -> str:
        """Wait until a node takes work (up) or is DOWN and its jobs are given up (not up); give its state.

        A killed node is `NOT_RESPONDING` after about 10 s and DOWN after about 30 s.
        """
        no_work = ("DOWN", "DRAIN", "UNKNOWN", "INVAL", "NOT_RESPONDING", "FUTURE", "*")

        def reached() -> bool:
            state = self.node_state(name)
            return not any(word in state for word in no_work) if up else "DOWN" in state

        wait(reached, timeout_s, f"{name} to be {'up' if up else 'down'}", self.folder, name)
        return self.node_state(name)

    def job_state(self, job: int | str) -> str:
        """Give a job's state by the accounting (`COMPLETED`, `CANCELLED` ...), or "" while it does not know it."""
        lines = self.run("sacct", "-X", "-n", "-P", "-o", "State", "-j", str(job)).stdout.split("\n")
        return lines[0].split(" ")[0]

    def wait_job(self, job: int | str, *states: str, timeout_s: float = 60) -> str:
        """Wait until a job has one of these states (none given: any final one), and give its state."""
        done = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")
        wait(lambda: self.job_state(job) in done, timeout_s, f"job {job} to be {done}", self.folder, "slurmctld")
        return self.job_state(job)

    def kill_node(self, name: str) -> None:
        """Kill a node's slurmd and all that runs on it with SIGKILL, like a power loss."""
        self._check(name)
        end(self.folder, name, signal.SIGKILL)
        kill_jobs(self.folder, name)

    def start_node(self, name: str, timeout_s: float = 60) -> None:
        """Start a node's slurmd, unless it runs, and wait until the controller has heard of it and gives it work."""
        self._check(name)
        if not launch(self.folder, name, ["slurmd", "-D", "-N", name]):
            return
        # the controller may not have missed the node yet: only a new SlurmdStartTime shows that it is back
        started = time.strftime("%Y-%m-%dT%H:%M:%S")

        def registered() -> bool:
            return started <= self._show_node(name).get("SlurmdStartTime", "") < "None"

        wait(registered, timeout_s, f"{name} to register", self.folder, name)
        self.wait_node(name, up=True, timeout_s=timeout_s)

    def stop_slurmdbd(self) -> None:
        """Stop the accounting: `sacct` fails, jobs go on."""
        end(self.folder, "slurmdbd", signal.SIGTERM)

    def start_slurmdbd(self, timeout_s: float = 60) -> None:
        """Start the accounting and wait until it answers."""
        launch(self.folder, "slurmdbd", ["slurmdbd", "-D"])
        wait(self._answers("sacctmgr", "-n", "show", "cluster"), timeout_s, "slurmdbd", self.folder, "slurmdbd")

    def stop_controller(self) -> None:
        """Stop slurmctld: no command answers, running jobs go on."""
        end(self.folder, "slurmctld", signal.SIGTERM)

    def start_controller(self, timeout_s: float = 60) -> None:
        """Start slurmctld from its saved state; wait until it answers and the nodes that are alive take work again."""
        launch(self.folder, "slurmctld", ["slurmctld", "-D"])
        wait(self._answers("sinfo", "-h"), timeout_s, "slurmctld", self.folder, "slurmctld")
        for name in (name for name in self.nodes if name in self.pids):
            self.wait_node(name, up=True, timeout_s=timeout_s)

    def drain(self, name: str, reason: str = "test") -> None:
        """Let a node finish its jobs and take no new ones."""
        self._update(name, "drain", f"reason={reason}")

    def down(self, name: str, reason: str = "test") -> None:
        """Mark a node down: its jobs are requeued or end as NODE_FAIL."""
        self._update(name, "down", f"reason={reason}")

    def resume(self, name: str) -> None:
        """Take back `drain` or `down`, and wait until the node takes work."""
        self._update(name, "resume")
        self.wait_node(name, up=True)

    def _update(self, name: str, state: str, *more: str) -> None:
        self._check(name)
        self.run("scontrol", "update", f"nodename={name}", f"state={state}", *more)

    def _show_node(self, name: str) -> dict[str, str]:
        words = self.run("scontrol", "-o", "show", "node", name).stdout.split()
        return {key: value for key, sign, value in (word.partition("=") for word in words) if sign}

    def _check(self, name: str) -> None:
        if name not in self.nodes:
            raise ValueError(f"no node {name!r}; nodes: {' '.join(self.nodes)}")

    def _answers(self, *args: str) -> Callable[[], bool]:
        def check() -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.run(*args, timeout_s=5, check=False).returncode == 0
            return False

        return check


def missing() -> str | None:
    """Say why this machine cannot hold the cluster, or None where it can, as far as can be seen without trying."""
    if not sys.platform.startswith("linux"):
        return f"Slurm runs on Linux, this is {sys.platform}"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=SEARCH)]
    if absent:
        return f"not installed: {' '.join(absent)} (sh tests/slurm/install.sh)"
    return None if os.geteuid() == 0 else "slurmd and the pretend GPUs need root"


def default_folder() -> Path:
    """Give the folder that the command line uses when none is named: one per user."""
    return Path(tempfile.gettempdir()) / f"vidmae-slurm-{os.getuid()}"


def load(folder: Path | str) -> Cluster:
    """Give the cluster of a folder, running or not.

    Raises:
        FileNotFoundError: no cluster was made there.
    """
    folder = Path(folder).resolve()
    if not (folder / MARKER).is_file():
        raise FileNotFoundError(f"no cluster in {folder} (start one: python tests/slurm/cluster.py start)")
    return Cluster(folder, tuple(json.loads((folder / MARKER).read_text())["nodes"]))


def status(folder: Path | str) -> dict[str, int | None]:
    """Give every daemon of a cluster with its pid, or None where it is not running."""
    cluster = load(folder)
    alive = cluster.pids
    return {name: alive.get(name) for name in ("munged", "mariadbd", "slurmdbd", "slurmctld", *cluster.nodes)}


def start(
    folder: Path | str | None = None, nodes: int = 4, *, gpus: int = 2, cpus: int = 8, mem_mib: int = 16384
) -> Cluster:
    """Start a cluster and wait until all nodes take work.

    One that runs whole in this folder already is given back as it is; what is left of a crashed one is cleared first.

    Args:
        folder: Where everything goes; None makes a temporary folder. The folder must be new, empty or a cluster's.
        nodes: How many, 1 to 100: cn1, cn2 ...
        gpus: Pretend GPUs of each node.
        cpus: CPUs that each node claims, whatever the host has.
        mem_mib: Memory that each node claims, in MiB; it is counted, never enforced.
    Raises:
        Unavailable: this machine cannot hold a cluster.
        ValueError: the folder is in use for something else, or holds a running cluster of another size.
        RuntimeError: a daemon did not come up; the message ends with its log, and all of it is down again.
    """
    if reason := missing():
        raise Unavailable(reason)
    if not 1 <= nodes <= 100:
        raise ValueError(f"nodes={nodes} is out of range [1, 100]")
    folder = Path(folder or tempfile.mkdtemp(prefix="vidmae-slurm-")).resolve()
    if (running := _claim(folder)) is not None:
        if len(running.nodes) != nodes:
            raise ValueError(f"{folder} holds a running cluster of {len(running.nodes)} nodes, not {nodes}; stop it")
        return running
    cluster = Cluster(folder, tuple(f"cn{i + 1}" for i in range(nodes)))
    owner = (os.getpid(), birth(os.getpid()))
    (folder / MARKER).write_text(json.dumps({"nodes": cluster.nodes, "owner": owner}) + "\n")
    try:
        name_nodes(cluster.nodes)
        write(folder, cluster.nodes, gpus=gpus, cpus=cpus, mem_mib=mem_mib)
        _launch_all(cluster)
    except BaseException:  # Ctrl-C included: no daemon stays behind a start that did not finish
        stop(folder, keep_logs=True)
        raise
    return cluster


def stop(folder: Path | str, *, keep_logs: bool = False) -> None:
    """End every process of the cluster and remove its folder; a folder that is gone is no error.

    Args:
        folder: The cluster's.
        keep_logs: Leave the folder's `log` and the marker that lets the next start reuse the folder.
    """
    folder = Path(folder).resolve()
    if not folder.exists():
        return
    cluster = load(folder)
    # nodes first: a slurmd would hand its jobs' ends to a controller that is gone, and retry
    for name in (*cluster.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"):
        end(folder, name, signal.SIGTERM)
        if name in cluster.nodes:
            kill_jobs(folder, name)
    _clear(folder, keep=("log", MARKER) if keep_logs else ())


def sweep(pattern: str) -> None:
    """Stop the clusters in the temporary folder that match the pattern and whose starting process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(pattern):
        with contextlib.suppress(FileNotFoundError, PermissionError, ValueError):
            owner = json.loads((folder / MARKER).read_text())["owner"]
            if folder.stat().st_uid == os.getuid() and not alive(*owner):
                stop(folder)


def _claim(folder: Path) -> Cluster | None:
    """Make the folder ours and empty, or give the cluster that runs in it."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to user {folder.stat().st_uid}; name another with --folder")
    if (folder / MARKER).is_file():
        if None not in status(folder).values():
            return load(folder)
        owner = json.loads((folder / MARKER).read_text())["owner"]
        if owner[0] != os.getpid() and alive(*owner):
            raise ValueError(f"process {owner[0]} is starting or using a cluster in {folder}; name another folder")
        stop(folder)
        folder.mkdir(mode=0o755, exist_ok=True)
    elif any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and no cluster of ours; name another with --folder")
    return None


def _launch_all(cluster: Cluster) -> None:
    """Start the daemons in the order in which they need each other."""
    folder, run = cluster.folder, cluster.folder / "run"
    # --force: munged wants a socket that all users reach, yet a test's folder may be below one that is closed to others
    munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key", f"--socket={run}/munge.socket"]
    munged += [f"--pid-file={run}/munged.pid", f"--seed-file={run}/munged.seed", f"--log-file={folder}/log/munged.log"]
    launch(folder, "munged", munged)
    # two servers with one tmpdir remove each other's temporary tables when they start
    base = ["--no-defaults", "--user=root", f"--datadir={folder}/mysql", f"--tmpdir={folder}/tmp"]
    install = ["mariadb-install-db", *base, "--auth-root-authentication-method=normal", "--skip-test-db"]
    made = subprocess.run(install, capture_output=True, text=True, timeout=120, env=daemon_env(folder))
    (folder / "log" / "mariadb-install.out").write_text(made.stdout + made.stderr)
    if made.returncode:
        raise RuntimeError(f"{install[0]} exited {made.returncode}\n{made.stdout}{made.stderr}")
    port = (folder / "sql_port").read_text()
    # a test's database need not survive a crash: no flushes, small buffers
    quick = ["--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite", "--innodb-buffer-pool-size=32M"]
    listen = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={run}/mysql.socket"]
    mariadbd = ["mariadbd", *base, *listen, *quick, "--innodb-lock-wait-timeout=900", "--skip-log-bin"]
    mariadbd += [f"--pid-file={run}/mariadbd.pid", f"--init-file={folder}/init.sql"]
    launch(folder, "mariadbd", mariadbd)
    wait((run / "munge.socket").exists, 30, "munged", folder, "munged")
    wait(lambda: _listens(int(port)), 60, "mariadbd", folder, "mariadbd")
    cluster.start_slurmdbd()
    cluster.start_controller()
    for name in cluster.nodes:  # at once: none waits for another
        launch(folder, name, ["slurmd", "-D", "-N", name])
    for name in cluster.nodes:
        cluster.wait_node(name, up=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def _clear(folder: Path, keep: tuple[str, ...]) -> None:
    for entry in folder.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if not keep:
        folder.rmdir()


def main(argv: list[str] | None = None) -> int:
    """Run the command line; give its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=4, help="nodes to start; default: %(default)s")
    args = parser.parse_args(argv)
    try:
        if args.verb == "start":
            cluster = start(args.folder, args.nodes)
            print(f"{len(cluster.nodes)} nodes are up; logs: {cluster.folder}/log", file=sys.stderr)
            print(f"export SLURM_CONF={cluster.env['SLURM_CONF']}")
        elif args.verb == "stop":
            stop(args.folder)
            print(f"stopped: {args.folder}", file=sys.stderr)
        else:
            states = status(args.folder)
            for name, pid in states.items():
                print(f"{name:10} {f'pid {pid}' if pid else 'not running'}")
            return 1 if None in states.values() else 0
    except (Unavailable, ValueError, FileNotFoundError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"cluster.py {args.verb}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
