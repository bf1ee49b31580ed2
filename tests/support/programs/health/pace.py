"""Three ranks take 60 steps, of which 21 to 40 are slow on the last rank: `pace.py RUN`; see test_stragglers.py."""

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from vidmae.ranks import dist
from vidmae.ranks.health.pace import Pace
from vidmae.ranks.watchdog import end_process
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.keeping_config import RecoveryConfig

PASS_S, SLOW_S = 0.002, 0.02


class Net(nn.Module):
    """Takes as long as it is told."""

    pass_s = PASS_S

    def forward(self) -> None:
        time.sleep(self.pass_s)


os.environ["SLURMD_NODENAME"] = f"node{os.environ['RANK']}"
ranks, net, said, metrics = dist.init("cpu"), Net(), [], []
run, slow = RunFolder(Path(sys.argv[1])), None
pace = Pace(run, RecoveryConfig(compare_steps=2, slow_pct=100.0, leave_out_pct=100.0, leave_out_s=0.0), ranks, net, zero_stage=2,
            say=said.append)
for step in range(60):
    began = time.perf_counter()
    net.pass_s = SLOW_S if 20 <= step < 40 and ranks.rank == 2 else PASS_S
    net()
    time.sleep(2 * net.pass_s)  # the backward pass
    pace.waited(0.0)
    numbers = torch.tensor([*pace.to_sum(step + 1), 0.0], dtype=torch.float64)
    averages = ranks.sum_tensor(numbers).div(ranks.world_size).tolist()[:-1]  # every step has a sum, as an update does
    pace.step_done(time.perf_counter() - began)
    if found := pace.compare(averages):
        metrics.append({"step": step + 1, **found})
    if step == 39 and ranks.is_main:
        slow = read_json(run.slow)
dist.close()
print(json.dumps({"metrics": metrics, "said": said, "slow": slow}), flush=True)
end_process(0)
