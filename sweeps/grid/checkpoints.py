"""What --checkpoints means: pretraining runs, files of weights, `scratch`. Reads configurations and headers, no tensors.

    run                 its weights.safetensors; model, frames and frame rate as in its config.yaml
    NAME.safetensors    an export; model, image size and frames from its header and its tensors' shapes, which must agree
    NAME.pth            a released file; the same, from the shapes of its tensors. A file of VideoMAE or V-JEPA 2 does not
                        say what clips it takes: those of the released models are taken
    FOLDER              config.json and model.safetensors, as a hub has them
    NAME                published weights (python jobs/weights.py list), or hf://owner/name/file; what is on this machine
    scratch             no weights, once for every shape of model among the others; alone, the recipe's model
    conv                a convolutional net without weights, once for every size of model among the others; alone, of the
                        FLOPs of the recipe's model
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jobs.standing.runs import all_runs, find_run, state_of, why
from sweeps.grid.grid import Init
from vidmae.footage.manifest import content_hash
from vidmae.model.formats.file_model import file_in, model_in
from vidmae.model.formats.weight_files import ENDINGS
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import NO_TIME_TABLE, PretrainConfig
from vidmae.settings.layers import ConfigError, load
from vidmae.weights.finding import find, is_name

SCRATCH, CONV = "scratch", "conv"
MODEL = ("name", "img_size", "num_frames", "t_patch_size")  # of a checkpoint's model what an encoder takes over
MORE = ("positions", "temporal_positions", "net")  # and where it is not as usual
TAKEN = "{name}: {taken}: taken as in the released models, the file does not say"


def find_inits(given: Sequence[str], after: Sequence[str], runs_dir: Path) -> list[Init]:
    """The checkpoints of a sweep, pretrained ones first.

    Args:
        given: Of --checkpoints; empty takes all finished pretraining runs, or those of --after, and scratch. conv comes
            where it is named.
        after: Of --after: runs that may still be under way.
        runs_dir: Folder of the runs.
    Raises:
        ConfigError: There is no such checkpoint, it cannot be used, or its run is not done.
        SlurmError: The state of a run that is not done cannot be asked.
    """
    @cache
    def pretrained() -> list[RunFolder]:  # reads a file of each cell, too, so only where a run is looked for
        return [run for run in all_runs(runs_dir) if (read_json(run.record) or {}).get("kind") == "pretrain"]

    waiting = {run.path: run for name in after if (run := find_run(name, runs_dir, pretrained()))}
    names = list(given) or [SCRATCH, *([] if after else [str(run.path) for run in pretrained() if run.result.exists()])]
    runs = dict(waiting)
    files: list[Init] = []
    for name in names:
        if is_name(name):
            files.append(_of_name(name))
        elif is_file(name):
            files.append(_of_file(Path(name).expanduser().absolute()))
        elif name not in (SCRATCH, CONV):
            run = find_run(name, runs_dir, pretrained())
            runs[run.path] = run
    found = [_of_run(run, run.path in waiting) for run in runs.values()] + files
    found = short_names(found)
    return found + (random_weights(found) if SCRATCH in names else []) + (_conv(found) if CONV in names else [])


def is_file(name: str) -> bool:
    """Whether a word means a file of weights, or a folder of a hub, and not a run."""
    path = Path(name).expanduser()
    return path.suffix in ENDINGS or (path / "config.json").is_file()


def _of_run(run: RunFolder, may_wait: bool) -> Init:
    record = read_json(run.record) or {}
    if record.get("kind") != "pretrain":
        raise ConfigError(f"{run.path.name} is no pretraining run (--checkpoints)")
    after = "" if run.result.exists() else _job_of(run, may_wait)
    pair = record.get("pair") or {}
    init = replace(init_of(run, record["signature"], load(PretrainConfig, run.config), after), grid=record.get("grid"))
    return replace(init, pair=f"{pair['match']} of {pair['video']}") if pair else init


def init_of(run: RunFolder, signature: str, config: PretrainConfig, after: str) -> Init:
    """A pretraining run as a checkpoint, under its full name.

    Args:
        run: Its folder.
        signature: Of the run.
        config: Of the run.
        after: Job that still has to finish it, or empty.
    Raises:
        ConfigError: It is done and its weights are gone.
    """
    if not after and not run.weights.is_file():
        raise ConfigError(f"{run.weights} is missing: {run.path.name} is done and its weights are gone (--checkpoints)")
    model = {key: getattr(config.model, key) for key in MODEL} | {"name": config.model.name.removeprefix("mae_")}
    model |= {} if config.model.temporal_positions else {"temporal_positions": False}
    clips = {"sampling_rate": config.data.sampling_rate, "target_fps": config.data.target_fps}
    return Init(run.path.name, str(run.weights), f"run:{signature}", {"model": model, "data": clips}, after)


def _job_of(run: RunFolder, may_wait: bool) -> str:
    """The job that still has to finish a run."""
    state = state_of(run)
    if not state.active:
        raise ConfigError(f"{run.path.name} is not done and nothing works on it: {why(state)}; continue it with --retry, or "
                          "leave it out (--checkpoints)")
    if not may_wait:
        raise ConfigError(f"{run.path.name} is not done: job {state.job_id} is {state.state}; to submit its cells so that "
                          f"they start when it is, give --after {run.path.name}")
    if state.cluster != "slurm":
        raise ConfigError(f"{run.path.name} is still trained on this machine (job {state.job_id}); --after needs Slurm: "
                          "wait for the run to end")
    return state.job_id


def _of_name(name: str) -> Init:
    """Published weights; a sweep takes what is here."""
    try:
        found = find(name, download=False)
    except ValueError as error:
        raise ConfigError(f"{error} (--checkpoints)") from error
    return _of_file(found.path.absolute(), found.known, found.name)


def _of_file(path: Path, known: Mapping[str, Any] | None = None, name: str = "") -> Init:
    if not path.exists():
        raise ConfigError(f"there is no file {path} (--checkpoints takes runs, .safetensors or .pth files, folders of a "
                          "hub, and scratch)")
    try:
        file, said = file_in(path)
        found = model_in(path, known)
    except ValueError as error:
        named = "" if str(path) in str(error) else f"{path.name}: "
        raise ConfigError(f"{named}{error} (--checkpoints)") from error
    model = found.settings if found else {key: value for key, value in said.items() if key in MODEL}
    name = name or (path.name if path.is_dir() else path.stem)
    settings = {"model": model} if model or file.suffix == ".safetensors" else None
    return Init(name, str(file), content_hash(file), settings, taken=found.taken if found else "")


def short_names(inits: Sequence[Init]) -> list[Init]:
    """Runs without their signature where that is still unique."""
    short = {init.content: init.name.rpartition("-")[0] if init.content.startswith("run:") else init.name for init in inits}
    counts = Counter(short[init.content] for init in inits)
    named = [replace(init, name=short[init.content]) if counts[short[init.content]] == 1 else init for init in inits]
    twice = [name for name, count in Counter(init.name for init in named).items() if count > 1]
    if twice:
        raise ConfigError(f"two checkpoints are called {twice[0]!r}, and tables could not tell them apart; rename the file")
    return named


def random_weights(others: Sequence[Init]) -> list[Init]:
    """`scratch` for every shape of model among other checkpoints."""
    shapes: dict[tuple[Any, ...], Mapping[str, Any] | None] = {}
    for init in others:
        model = (init.settings or {}).get("model", {})
        if model.get("net") == "conv":
            continue
        shapes.setdefault(tuple(model.get(key) for key in (*MODEL, *MORE)), _as_new(init.settings))
    if len(shapes) <= 1:
        return [Init(SCRATCH, settings=next(iter(shapes.values()), None))]
    return [Init(_scratch_name(shape, list(shapes)), settings=settings) for shape, settings in shapes.items()]


def _conv(others: Sequence[Init]) -> list[Init]:
    """The convolutional net for every size of model: of its FLOPs, on its clips. Tables of positions make no difference, and
    layers do not learn at rates of their own."""
    sizes: dict[tuple[Any, ...], dict[str, Any]] = {}
    for settings in [init.settings or {} for init in others] or [{}]:
        model = settings.get("model", {})
        own = {key: model[key] for key in MODEL if key in model} | {"net": "conv", "pool": "mean"}
        sizes.setdefault(tuple(model.get(key) for key in MODEL),
                         {**settings, "model": own, "train": {**settings.get("train", {}), "layer_decay": 1.0}})
    of_any = [(*size, *[None] * len(MORE)) for size in sizes]
    names = [CONV] if len(sizes) == 1 else [_scratch_name(size, of_any, CONV) for size in of_any]
    return [Init(name, settings=settings) for name, settings in zip(names, sizes.values(), strict=True)]


def _as_new(settings: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Without how a finetuned file pools, where a model has a class token: that is the cell's to say."""
    model = (settings or {}).get("model") or {}
    if settings is None or "pool" not in model or "positions" in model:
        return settings
    return {**settings, "model": {key: value for key, value in model.items() if key != "pool"}}


def _scratch_name(shape: tuple[Any, ...], shapes: Sequence[tuple[Any, ...]], word: str = SCRATCH) -> str:
    """`scratch-` and as much of the shape as tells it from the others."""
    name, img_size, num_frames, t_patch_size, positions, temporal_positions, _ = shape
    if name is None:
        return word
    alike = [other for other in shapes if other[0] == name]
    parts = [name]
    parts += [f"{img_size}px"] if len({other[1] for other in alike}) > 1 else []
    parts += [f"{num_frames}x{t_patch_size}"] if len({other[2:4] for other in alike}) > 1 else []
    parts += [positions or "learned"] if len({other[4] for other in alike}) > 1 else []
    parts += [NO_TIME_TABLE] if temporal_positions is False and None in {other[5] for other in alike} else []
    return "-".join([word, *parts])
