"""Small runs on real clips for the tests: a folder as the launcher makes it, and the training program in it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.support.facilities import need
from tests.support.footage import small_clips
from tests.support.ranks import free_port
from tests.support.started import AT_THE_START, Started, run
from vidmae.footage.manifest import Source
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import ModelConfig, PretrainConfig, find_recipe
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, read_yaml, to_yaml

TINY = ["model.name=mae_vit_nano_patch16", "model.img_size=32", "model.num_frames=4", "model.pred_t_dim=4",
        "model.decoder_embed_dim=48", "model.decoder_depth=1", "model.mask_ratio=0.75", "data.sampling_rate=2",
        "data.repeat_aug=2", "data.workers=0", "train.global_batch=8", "train.micro_batch=2", "train.precision=fp32",
        "train.threads=1", "checkpoint.every_steps=2", "log.picture=false", "log.tensorboard=false",
        "train.phases=[{duration: 4 steps, lr: 1.0e-3}]"]
"""Settings on top of the demo recipe: half a second of training."""


def make_manifest(folder: Path, clips: Sequence[Path] | None = None) -> Path:
    """A manifest of the real clips, which are small unless others are given."""
    need("clips")
    return _listed(folder / "clips.csv", [Source(str(path), "") for path in clips or small_clips()])


def _listed(out: Path, sources: Sequence[Source]) -> Path:
    """A manifest of files that decord reads, made by a process of its own: decoders leave threads behind."""
    asked = json.dumps([[source.path, source.label] for source in sources])
    done = run("tests.support.programs.listed", str(out), asked, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return out


def make_run(path: Path, manifest: Path, *settings: str) -> RunFolder:
    """A run folder with its configuration; `settings` are `key=value` on top of TINY."""
    layers = [read_yaml(find_recipe("demo")), *parse_set([*TINY, f"data.manifest={manifest}", *settings])]
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(build(PretrainConfig, layers)[0]))
    return run


CELL = ["model.name=vit_nano_patch16", "model.img_size=32", "model.num_frames=4", "model.drop_path=0.1",
        "data.sampling_rate=2", "data.workers=0", "data.read_limit_s=0", "data.crop_area=[0.5,1]", "train.global_batch=8",
        "train.micro_batch=2", "train.precision=fp32", "train.device=cpu", "train.threads=1", "train.clip_grad=1",
        "checkpoint.every_steps=2", "log.tensorboard=false", "train.phases=[{duration: 6 steps, lr: 1.0e-3}]"]
"""Settings of a small cell on top of the defaults."""


def export_model(path: Path, config: ModelConfig, *, seed: int = 0, **sampling: object) -> Path:
    """The weights of a model before training, as a run exports them; with what is said of its clips."""
    from vidmae.model.trained import untrained
    from vidmae.model.weights import save_safetensors

    header = {"config": json.dumps(asdict(config))} | ({"sampling": json.dumps(sampling)} if sampling else {})
    save_safetensors(untrained(config, seed=seed).state_dict(), path, header)
    return path


def make_labelled(folder: Path, *, train: int, val: int) -> tuple[Path, Path]:
    """Two manifests of real clips, small, each of a class of its own; copies differ in a box at the end that no decoder reads."""
    need("clips")
    folder.mkdir()
    manifests = []
    for name, count in (("set", train), ("set-val", val)):
        sources = []
        for clip in (p for p in small_clips() if "pristine" not in p.name):  # the same footage as another of them
            for i in range(count):
                copy = folder / f"{name}-{clip.stem}-{i}.mp4"
                copy.write_bytes(clip.read_bytes() + struct.pack(">I4s", 8 + 1 + i + 100 * len(name), b"free")
                                 + bytes(1 + i + 100 * len(name)))
                sources.append(Source(str(copy), f"clip {clip.stem}"))
        manifests.append(_listed(folder / f"{name}.csv", sources))
    return manifests[0], manifests[1]


def make_cell(path: Path, manifests: tuple[Path, Path], *settings: str) -> RunFolder:
    """A cell's folder with its configuration; `settings` are `key=value` on top of CELL."""
    given = [*CELL, f"data.manifest={manifests[0]}", f"data.val_manifest={manifests[1]}", "data.shots=0", *settings]
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(build(FinetuneConfig, parse_set(given))[0]))
    return run


def start(run: RunFolder, *, world_size: int = 1, env: dict[str, str] | None = None, poison: tuple[int, ...] = (),
          program: str = "vidmae.train.pretrain") -> list[Started]:
    """Start the training program on several ranks; on windows `poison` of the data the last rank's loss is NaN."""
    command = ["tests.support.programs.poison", ",".join(map(str, poison))] if poison else [program]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    base = {**clean, **AT_THE_START, **(env or {})}
    if world_size > 1:
        base |= {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    anew = "PYTHONPATH" in (env or {}) or any(base[name] != value for name, value in AT_THE_START.items())
    processes = []
    for rank in range(world_size):
        ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world_size > 1 else {}
        processes.append(Started(*command, str(run.path), env={**base, **ranked}, merged=True, anew=anew))
    return processes


def finish(processes: list[Started], *, timeout_s: float = 300) -> tuple[list[int], str]:
    """Wait for the ranks; exit code of each, and what all of them printed."""
    try:
        outputs = [p.communicate(timeout=timeout_s)[0] for p in processes]
    except subprocess.TimeoutExpired as error:
        for p in processes:
            p.kill()
        raise AssertionError("\n".join([str(error), *(p.communicate()[0] for p in processes)])) from error
    finally:
        for p in processes:
            p.kill()
    return [p.returncode for p in processes], "\n".join(outputs)


def train(run: RunFolder, *, world_size: int = 1, timeout_s: float = 300, env: dict[str, str] | None = None,
          poison: tuple[int, ...] = (), program: str = "vidmae.train.pretrain") -> tuple[list[int], str]:
    """Run the training program on several ranks to its end; see `finish`."""
    return finish(start(run, world_size=world_size, env=env, poison=poison, program=program), timeout_s=timeout_s)
