"""A rank that calls itself a node and checks it: `python -m tests.support.programs.health.checks RUN MODE STAGE JOB`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from vidmae.ranks import dist
from vidmae.ranks.health.node_checks import UnfitNodesError, check_nodes
from vidmae.ranks.program import LeaveError
from vidmae.runs.record import RunFolder
from vidmae.settings.config import PretrainConfig


def main(run: str, mode: str, stage: str, job: str) -> int:
    os.environ |= {"SLURMD_NODENAME": f"cn{1 + int(os.environ.get('RANK', '0'))}", "SLURM_JOB_ID": job}
    ranks, config = dist.init("cpu"), PretrainConfig()
    config = replace(config, recovery=replace(config.recovery, checks=mode), data=replace(config.data, stage=stage))
    before, began, cpu_s, raised = torch.get_rng_state(), time.perf_counter(), time.process_time(), ""
    try:
        check_nodes(RunFolder(Path(run)), config, ranks)
    except (LeaveError, UnfitNodesError) as error:
        raised = f"{type(error).__name__}: {error}"
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    torch.distributed.barrier()  # the process group of all is as it was
    same = bool((torch.get_rng_state() == before).all()) and torch.get_num_threads() == 1
    print(json.dumps({"raised": raised, "seconds": took_s, "cpu_s": cpu_s, "same": same}), flush=True)
    dist.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
