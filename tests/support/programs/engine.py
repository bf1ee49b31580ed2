"""Trains a small network through vidmae.ranks.engine and prints what happened as JSON; started by test_engine.py."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from vidmae.ranks import dist
from vidmae.ranks.engine import TAG, Engine, NonFiniteError
from vidmae.ranks.shard_writer import write_shards
from vidmae.ranks.watchdog import end_process
from vidmae.settings.config import TrainConfig


class Net(nn.Module):
    """Two layers with a squared loss."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 17), nn.Linear(17, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = self.b(torch.tanh(self.a(x.to(self.a.weight.dtype)))).float()
        return ((out - y) ** 2).mean()


def build() -> tuple[Net, list[dict]]:
    torch.manual_seed(5)
    net = Net()
    return net, [{"params": [net.a.weight, net.b.weight], "weight_decay": 0.1},
                 {"params": [net.a.bias, net.b.bias], "weight_decay": 0.0}]


def batch(step: int, global_batch: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(100 + step)
    return torch.randn(global_batch, 6, generator=g), torch.randn(global_batch, 3, generator=g)


def lr_at(step: int) -> float:
    return 0.01 * (step + 1)


def write(folder: Path, shards: dict) -> None:
    (folder / TAG).mkdir(parents=True, exist_ok=True)
    write_shards(folder, shards)


def train(ranks: dist.Ranks, stage: int, precision: str, mode: str, folder: Path) -> dict:
    """Six steps of eight clips; `mode` adds a save, a resume, an optimizer reset, a NaN loss or an infinite gradient.

    `elastic:4:2` resumes what 4 ranks have saved in stage 2. `offload-MODE` keeps the optimizer's state in host memory.
    """
    net, groups = build()
    offload, mode = ("optimizer", mode.removeprefix("offload-")) if mode.startswith("offload-") else ("none", mode)
    config = TrainConfig(zero_stage=stage, precision=precision, clip_grad=0.5, offload=offload)  # type: ignore[arg-type]
    precision += "-offload" if offload != "none" and mode in ("save", "resume") else ""  # of the folder's name
    micro = min(2, 8 // ranks.world_size)
    accum = 8 // ranks.world_size // micro
    engine = Engine(net, groups, config, ranks, micro_batch=micro, grad_accum=accum)
    losses, norms, error, saved, resumes = [], [], "", None, mode.startswith(("resume", "elastic"))
    if mode == "resume":
        engine.load(folder / f"{precision}-{stage}-{ranks.world_size}")
    elif resumes:
        old_ranks, old_stage = map(int, mode.split(":")[1:])
        engine.load_resharded(folder / f"{precision}-{old_stage}-{old_ranks}", zero_stage=old_stage, world_size=old_ranks)
    if resumes:
        saved = {k: v.tolist() for k, v in engine.full_parameters()}
    for step in range(3 if resumes else 0, 6):
        engine.set_lr(lr_at(step))
        if mode == "save" and step == 3:
            saved, later = {k: v.tolist() for k, v in engine.full_parameters()}, engine.shards(copied=True)
            write(folder / f"{precision}-{stage}-{ranks.world_size}", engine.shards(copied=False))
        if mode == "reset" and step == 3:
            engine.reset_optimizer()
        x, y = batch(step)
        if mode == "nan" and step == 2 and ranks.rank == ranks.world_size - 1:
            y = y * float("nan")
        if mode == "inf" and step == 2 and ranks.rank == ranks.world_size - 1:
            net.a.weight.register_hook(lambda g: g * float("inf"))
        for j in range(accum):
            at = (ranks.rank * accum + j) * micro
            engine.backward(x[at:at + micro], y[at:at + micro])
        try:
            loss, norm, extra = engine.update(extra=[float(ranks.rank)])
        except NonFiniteError as e:
            error = str(e)
            break
        assert abs(extra[0] - (ranks.world_size - 1) / 2) < 1e-12
        losses.append(loss)
        norms.append(norm)
    if mode == "save":  # the copies taken at step 3, after training went on
        write(folder / f"{precision}-{stage}-{ranks.world_size}-later", later)
    weights = {k: v.tolist() for k, v in engine.full_parameters()}
    return {"losses": losses, "norms": norms, "weights": weights, "error": error, "saved": saved,
            "compiler": "torch._inductor.compile_fx" in sys.modules}


def main(folder: str, *cases: str) -> None:
    """Run cases such as `2,fp32,save` one after the other in one process group (deepspeed is slow to import)."""
    ranks, results = dist.init("cpu"), {}
    for case in cases:
        stage, precision, mode = case.split(",")
        results[case] = train(ranks, int(stage), precision, mode, Path(folder))
    print(json.dumps(results))
    dist.close()
    end_process(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
