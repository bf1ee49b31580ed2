"""Small runs on real clips for the tests: a folder as the launcher makes it, and the training program in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.facilities import demo_clips, need
from tests.ranks import free_port
from vidmae.config import PretrainConfig, find_recipe
from vidmae.layers import build, parse_set, read_yaml, to_yaml
from vidmae.manifest import Check, Source
from vidmae.manifest import build as build_manifest
from vidmae.record import RunFolder, make_private_folder

TINY = ["model.name=mae_vit_nano_patch16", "model.img_size=32", "model.num_frames=4", "model.pred_t_dim=4",
        "model.decoder_embed_dim=48", "model.decoder_depth=1", "model.mask_ratio=0.75", "data.sampling_rate=2",
        "data.repeat_aug=2", "data.workers=0", "train.global_batch=8", "train.micro_batch=2", "train.precision=fp32",
        "checkpoint.every_steps=2", "log.picture=false", "log.tensorboard=false",
        "train.phases=[{duration: 4 steps, lr: 1.0e-3}]"]
"""Settings on top of the demo recipe: half a second of training."""


def make_manifest(folder: Path) -> Path:
    """A manifest of the real clips."""
    need("clips")
    out = folder / "clips.csv"
    build_manifest([Source(str(p), "") for p in demo_clips()], out, Check("decord", False), workers=1, time_limit_s=120,
                   progress=lambda *_: None)
    return out


def make_run(path: Path, manifest: Path, *settings: str) -> RunFolder:
    """A run folder with its configuration; `settings` are `key=value` on top of TINY."""
    layers = [read_yaml(find_recipe("demo")), *parse_set([*TINY, f"data.manifest={manifest}", *settings])]
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(build(PretrainConfig, layers)[0]))
    return run


def start(run: RunFolder, *, world_size: int = 1, env: dict[str, str] | None = None, poison: tuple[int, ...] = (),
          ) -> list[subprocess.Popen[str]]:
    """Start the training program on several ranks; on windows `poison` of the data the last rank's loss is NaN."""
    program = ["tests.program_poison", ",".join(map(str, poison))] if poison else ["vidmae.pretrain"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    base = {**clean, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **(env or {})}
    if world_size > 1:
        base |= {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(world_size):
        ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world_size > 1 else {}
        processes.append(subprocess.Popen([sys.executable, "-m", *program, str(run.path)], text=True, env={**base, **ranked},
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return processes


def finish(processes: list[subprocess.Popen[str]], *, timeout_s: float = 300) -> tuple[list[int], str]:
    """Wait for the ranks; exit code of each, and what all of them printed."""
    try:
        outputs = [p.communicate(timeout=timeout_s)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [p.returncode for p in processes], "\n".join(outputs)


def train(run: RunFolder, *, world_size: int = 1, timeout_s: float = 300, env: dict[str, str] | None = None,
          poison: tuple[int, ...] = ()) -> tuple[list[int], str]:
    """Run the training program on several ranks to its end; see `finish`."""
    return finish(start(run, world_size=world_size, env=env, poison=poison), timeout_s=timeout_s)
