"""Nodes that a run stays off from its next start on: left_out.jsonl in the run folder. Stdlib only.

    time     seconds since 1970          node     as Slurm calls it
    job_id   that found it               reason   why, with what was measured and what would have been right

The end of a job reads it (jobs/submit/recover.py) and requeues the job without the nodes that it found itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping

from vidmae.runs.record import RunFolder, job_id


def node_name() -> str:
    """The node that this process runs on, as Slurm calls it; without Slurm the host."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def leave_out_node(run: RunFolder, node: str, reason: str) -> None:
    """Stay off a node from the next start on. Any rank may call it: one short line in one write.

    On a file system such as NFS, where nodes do not append atomically, of two lines that two nodes write in the same moment
    one can be lost; a node that is still bad is then found at the next start.
    """
    line = json.dumps({"time": time.time(), "job_id": job_id(), "node": node, "reason": reason}) + "\n"
    where = os.open(run.left_out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(where, line.encode())
    finally:
        os.close(where)


def nodes_left_out(run: RunFolder, job: str = "", *, since: float = 0.0) -> Mapping[str, str]:
    """Node -> the newest reason. A line that was cut off is left out.

    Args:
        run: The run folder.
        job: Only those that the job of this id has found; empty: all.
        since: Only those found after this time, seconds since 1970.
    """
    found: dict[str, str] = {}
    if run.left_out.exists():
        for line in run.left_out.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry["time"] >= since and job in ("", entry["job_id"]):
                found[entry["node"]] = entry["reason"]
    return found
