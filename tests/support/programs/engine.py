"""Trains a small network through vidmae.ranks.engine and prints what happened as JSON; started by test_engine.py."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import vidmae
from vidmae.ranks import dist
from vidmae.ranks.engine import TAG, Engine, NonFiniteError
from vidmae.ranks.shard_writer import write_shards
from vidmae.ranks.watchdog import end_process
from vidmae.settings.config import TrainConfig

MOMENTUM = 0.9  # of the running averages


class Net(nn.Module):
    """Two layers with a squared loss."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 17), nn.Linear(17, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = self.b(torch.tanh(self.a(x.to(self.a.weight.dtype)))).float()
        return ((out - y) ** 2).mean()


class Reads(TorchDispatchMode):
    """Counts what the host waits for where the device is a GPU: numbers of tensors that Python looks at, by who asks.

    What was copied to the host's memory, and what is made of that alone, is looked at for nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        import deepspeed
        self.counts = {"vidmae": 0, "deepspeed": 0}
        self._who = {str(Path(package.__file__).parent) + "/": name for package, name in ((vidmae, "vidmae"), (deepspeed, "deepspeed"))}
        lists, copies = torch.Tensor.tolist, torch.Tensor.cpu
        self._patches = [mock.patch.object(torch.Tensor, "tolist", lambda tensor: self.read(tensor) or lists(tensor)),
                         mock.patch.object(torch.Tensor, "cpu", lambda tensor: self.read(tensor) or self.host([copies(tensor)])[0])]

    def read(self, tensor: torch.Tensor) -> None:
        if not getattr(tensor, "in_host_memory", False):
            files = [frame.filename for frame in traceback.extract_stack()[::-1]]
            self.counts[next(name for file in files for folder, name in self._who.items() if file.startswith(folder))] += 1

    def host(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        for tensor in tensors:
            tensor.in_host_memory = True  # type: ignore[attr-defined]
        return tensors

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten._local_scalar_dense.default:
            self.read(args[0])
        out = func(*args, **(kwargs or {}))
        given, made = ([x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)] for tree in ((args, kwargs), out))
        if given and all(getattr(x, "in_host_memory", False) for x in given):
            self.host(made)
        return out

    def __enter__(self) -> "Reads":
        for patch in self._patches:
            patch.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for patch in self._patches:
            patch.stop()


def reads_of_a_step(engine: Engine, x: torch.Tensor, y: torch.Tensor, accum: int) -> dict[str, int]:
    """Who looks at numbers of the device in one step, and how often."""
    reads, look = Reads(), engine._look
    engine._look = lambda norms: reads.host(look(norms))  # type: ignore[method-assign]
    if engine._train.zero_stage:
        engine._norms._look = engine._look
    with reads:
        for _ in range(accum):
            engine.backward(x, y)
        engine.update(extra=[1.0])
    return reads.counts


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


def state(engine: Engine) -> dict[str, list]:
    """All weights, and as `average.NAME` their running averages where the engine keeps them."""
    averages = {f"average.{name}": value for name, value in engine.averaged(torch.float32)}
    return {name: value.tolist() for name, value in {**dict(engine.full_parameters()), **averages}.items()}


def noting(function: Callable[..., Any], paths: list[str]) -> Callable[..., Any]:
    """A function of `os` that notes what it was called for."""
    def call(path: Any, *args: Any, **more: Any) -> Any:
        paths.append(str(path))
        return function(path, *args, **more)

    return call


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
    losses, norms, error, saved, resumes = [], [], "", None, mode.startswith(("resume", "elastic"))
    averages = resumes or mode == "save"
    engine = Engine(net, groups, config, ranks, micro_batch=micro, grad_accum=accum, averages=averages)
    looked: list[str] = []
    if mode == "resume":
        with mock.patch("os.stat", noting(os.stat, looked)), mock.patch("os.scandir", noting(os.scandir, looked)):
            engine.load(folder / f"{precision}-{stage}-{ranks.world_size}")
    elif resumes:
        old_ranks, old_stage = map(int, mode.split(":")[1:])
        engine.load_resharded(folder / f"{precision}-{old_stage}-{old_ranks}", zero_stage=old_stage, world_size=old_ranks)
    if resumes:
        saved = state(engine)
    for step in range(3 if resumes else 0, 6):
        engine.set_lr(lr_at(step))
        if mode == "save" and step == 3:
            saved, later = state(engine), engine.shards(copied=True)
            write(folder / f"{precision}-{stage}-{ranks.world_size}", engine.shards(copied=False))
        if mode == "reset" and step == 3:
            engine.reset_optimizer()
        x, y = batch(step)
        if mode == "reads":
            saved = reads_of_a_step(engine, x[:micro], y[:micro], accum)
            continue
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
        if averages:
            engine.move_average(MOMENTUM)
    if mode == "save":  # the copies taken at step 3, after training went on
        write(folder / f"{precision}-{stage}-{ranks.world_size}-later", later)
    return {"losses": losses, "norms": norms, "weights": state(engine), "error": error, "saved": saved,
            "looked": sum(str(folder) in path for path in looked),
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
