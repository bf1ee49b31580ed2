"""What the cluster's folder holds before its daemons start: configuration, keys, pretend GPUs; and the nodes' names."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import socket
import stat
from pathlib import Path

HOSTS = Path("/etc/hosts")
HOSTS_TAG = "# vidmae tests/slurm/cluster.py"

_SLURM = """\
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job is held back until its old credential has expired: 2 minutes by default
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
EnforcePartLimits=ALL
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=512
# MASTER_PORT is often derived from the job id, and all clusters of this machine share 127.0.1.x
FirstJobId={first_job}
JobRequeue=1
ReturnToService=2
KillWait=4
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
TreeWidth=64
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
# the nodes' size is what is written here, not what the host has: tests see the same cluster on every machine
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
# with auth/munge this is no password but the socket for talking to slurmdbd, where AuthInfo is not read
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
{node_lines}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=gpu Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=10 OverSubscribe=NO PriorityTier=1 GraceTime=60
PartitionName=debug Nodes={first_node} MaxTime=00:10:00 DefaultTime=5 OverSubscribe=NO PriorityTier=1 GraceTime=60
# a job here preempts those of the others: they get SIGTERM, and have a minute
PartitionName=urgent Nodes=ALL MaxTime=1-00:00:00 DefaultTime=5 OverSubscribe=NO PriorityTier=10 PreemptMode=OFF
"""
_SLURMDBD = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql_port}
StorageLoc=slurm_acct_db
StorageUser=slurm
StoragePass={password}
"""
_SQL = """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


class Unavailable(RuntimeError):
    """This machine cannot hold the cluster; the message says why."""


def name_nodes(nodes: tuple[str, ...]) -> None:
    """Put the nodes' names in /etc/hosts where they are not; refuse names that mean other machines."""
    try:
        with HOSTS.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two clusters may start at the same time
            text = file.read()
            known = {name: line.split()[0] for line in text.splitlines() for name in line.partition("#")[0].split()[1:]}
            for i, name in enumerate(nodes, start=1):
                if (address := known.get(name)) is None:
                    file.write(f"{'' if text.endswith(chr(10)) else chr(10)}127.0.1.{i} {name} {HOSTS_TAG}\n")
                    text = "\n"
                elif address != f"127.0.1.{i}":
                    raise Unavailable(f"{name} is {address} in {HOSTS}, the pretend node needs 127.0.1.{i}")
    except OSError as error:
        raise Unavailable(f"cannot name the nodes in {HOSTS}: {error}") from error


def _free_ports(count: int) -> list[int]:
    """Choose ports that nobody listens on, below the range from which the kernel hands out ports of its own."""
    ports: list[int] = []
    for port in random.sample(range(20000, 32000), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise Unavailable(f"no {count} free ports in 20000 to 32000")


def write(folder: Path, nodes: tuple[str, ...], *, gpus: int, cpus: int, mem_mib: int) -> None:
    """Fill an empty folder.

    Args:
        folder: Where the cluster lives.
        nodes: Their names; the i-th is 127.0.1.i.
        gpus: Pretend GPUs of each node.
        cpus: CPUs that each node claims.
        mem_mib: Memory that each node claims.
    Raises:
        Unavailable: no device files can be made, or no ports are free.
    """
    for name in ("run", "log", "state", "spool", "pid", "dev", "tmp", *(f"spool/{node}" for node in nodes)):
        (folder / name).mkdir(mode=0o755)
    ports = _free_ports(3 + len(nodes))
    host = socket.gethostname().split(".")[0]
    gres = f" Gres=gpu:cpu:{gpus}" if gpus else ""
    values = {
        "folder": folder,
        "cluster": f"vidmae{secrets.token_hex(3)}",
        "host": host,
        "ctld_port": ports[0],
        "dbd_port": ports[1],
        "sql_port": ports[2],
        "first_job": random.randrange(1000, 60000),
        "password": secrets.token_hex(16),
        "first_node": nodes[0],
        "node_lines": "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.1.{i} Port={ports[2 + i]}"
            f" CPUs={cpus} RealMemory={mem_mib}{gres}"
            for i, name in enumerate(nodes, start=1)
        ),
    }
    _pretend_gpus(folder, gpus)
    (folder / "slurm.conf").write_text(_SLURM.format(**values))
    _write_secret(folder / "slurmdbd.conf", _SLURMDBD.format(**values).encode())
    _write_secret(folder / "init.sql", _SQL.format(**values).encode())
    _write_secret(folder / "munge.key", secrets.token_bytes(128))
    (folder / "sql_port").write_text(str(ports[2]))


def _pretend_gpus(folder: Path, gpus: int) -> None:
    """Make null devices for Slurm to hand out: it refuses regular files, and counts 0 GPUs without files."""
    try:
        for i in range(gpus):
            os.mknod(folder / "dev" / f"gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError as error:
        raise Unavailable(f"cannot make the device files of the pretend GPUs: {error}") from error
    (folder / "gres.conf").write_text(f"Name=gpu Type=cpu File={folder}/dev/gpu[0-{gpus - 1}]\n" if gpus else "")


def _write_secret(file: Path, data: bytes) -> None:
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(data)
