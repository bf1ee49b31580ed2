"""An image model that is matched to a video model: what the two pretrainings are, and what is equal between them.

The image model has the video model's encoder, data, seed, order of clips and optimisation. Each of its clips is one frame
of a clip of the video model (data.window_frames), and it sees the frames of those clips before it sees any other
(data.window_clips). Its objective (mask ratio, depth of the decoder, what is predicted) is that of a recipe: pixels where
the recipe says nothing, though the video model predicts features.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from jobs.place.experiment import KIND, Experiment, Place, Setting, assemble, read_data, read_profile, resolve
from jobs.place.found_data import FoundData, find_sources_of
from jobs.standing.runs import find_run
from sweeps.pretraining.matching import PairMatch, Shown, matched_phases
from sweeps.pretraining.pretraining_run import Pretraining, look_at
from vidmae.runs.cost import train_flops_per_clip
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import RECIPES, ModelConfig, PretrainConfig
from vidmae.settings.layers import ConfigError, Layer, build, load, parse_set, to_dict
from vidmae.settings.recipe import read_recipe
from vidmae.settings.schedule import Schedule

OWN = ("model.", "train.", "checkpoint.", "recovery.", "log.", "data.workers", "data.read_", "data.recheck_pct",
       "data.max_bad_pct", "data.crop_", "data.flip_prob", "data.decoder")  # what --image-set may change
NOT_OWN = ("train.phases", "train.init", "model.name", "model.img_size", "model.num_frames", "model.t_patch_size")
ENCODER = ("name", "img_size")  # of a model what both have
OBJECTIVE = ("decoder_mask_ratio", "mask", "temporal_positions", "target", "feature_loss", "teacher_momentum",
             "norm_pix_loss")
"""Of a model what is as usual in the image model, unless its recipe says other."""
RATES = re.compile(r"train\.phases\.\d+\.(lr|blr|min_lr)")
FAR = 0.01  # a smaller difference is rounding to whole steps
ONCE = ("single-pass", "windows")  # orders in which footage does not come again


@dataclass(frozen=True)
class Pair:
    """Two pretrainings.

    Attributes:
        match: What is equal.
        video: Of the video model.
        image: Of the image model.
        planned: The video model is one of this command, which submits it; else a run that is there.
        shown: What the two see.
    """

    match: PairMatch
    video: Pretraining
    image: Pretraining
    planned: bool
    shown: tuple[Shown, Shown]

    @property
    def own(self) -> list[Pretraining]:
        """The runs that the command submits."""
        return [self.video, self.image] if self.planned else [self.image]

    def with_runs(self, own: Sequence[Pretraining]) -> Pair:
        """The same with the runs of the command as they are now."""
        return replace(self, image=own[-1], video=own[0] if self.planned else self.video)


def read_pair(args: argparse.Namespace, place: Place) -> tuple[Pair, list[str]]:
    """The pair that a command means, and what could not be asked; nothing is written.

    Args:
        args: Of sweeps/pair.py.
        place: Where it runs.
    Raises:
        ConfigError: The video model is none, is not there or has lost its data, or a setting cannot be used.
        SlurmError: Slurm does not answer.
    """
    setting, planned = read_profile(args, place), _is_recipe(args.video)
    video, schedule = _planned(args, place) if planned else _of_run(args, place, setting)
    _refuse_no_video(args.video, video.config)
    steps = schedule.total_steps if schedule else 0
    image = _image(args, place, setting, video, schedule) if schedule else video  # `problems` says why there is no plan
    shown = _shown(video.config, steps), _shown(image.config, image.plan.schedule.total_steps if image.plan else 0)
    image = replace(image, pair=_record(args.match, video, shown))
    (one, other), unasked = look_at([Pretraining(video), Pretraining(image)])
    return Pair(args.match, one, other, planned, shown), unasked


def _is_recipe(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or (RECIPES / f"{name}.yaml").is_file()


def _planned(args: argparse.Namespace, place: Place) -> tuple[Experiment, Schedule | None]:
    """The video model of a recipe, as jobs/pretrain.py would have it."""
    unset = {"profile_steps": None, "stage": None, "checks": None}
    e = resolve(argparse.Namespace(**{**vars(args), "recipe": args.video, **unset}), place)
    return e, e.plan.schedule if e.plan else None


def _of_run(args: argparse.Namespace, place: Place, setting: Setting) -> tuple[Experiment, Schedule]:
    """The video model of a run, in its own folder and with its own data."""
    for flag, given in (("--data", args.data), ("--set", args.set), ("--name", args.name)):
        if given:
            raise ConfigError(f"{flag} changes a recipe, and --video {args.video} is no recipe but a run, which is as it is "
                              "(--image-set changes the image model)")
    run = find_run(args.video, args.runs_dir.expanduser())
    record = read_json(run.record) or {}
    if record.get("kind") != KIND:
        raise ConfigError(f"--video {run.path.name} is a run of kind {record.get('kind')!r}, allowed: a pretraining run, or "
                          "a recipe")
    config, plan = load(PretrainConfig, run.config), record.get("plan")
    if not plan:
        raise ConfigError(f"--video {run.path.name}: its run.json does not say how long it was trained (plan)")
    data = _data_of(run, config, setting, record.get("content_sha256"))
    layers = [Layer(f"run {run.path.name}", to_dict(config))]
    e = assemble(place, setting, layers, data[0].source, data[0].summary, run.path.parent, data[1])
    per_epoch = round(plan["steps_per_epoch"] * config.train.global_batch)
    schedule = Schedule.plan(config.train.phases, clips_per_epoch=per_epoch, global_batch=config.train.global_batch)
    if schedule.total_steps != plan["total_steps"]:
        raise ConfigError(f"--video {run.path.name}: its run.json says {plan['total_steps']} steps, and its config.yaml "
                          f"means {schedule.total_steps}; one of them was changed")
    return replace(e, run=run, config=config), schedule


def _data_of(run: RunFolder, config: PretrainConfig, setting: Setting, content: str | None,
             ) -> tuple[FoundData, list[FoundData]]:
    """The data of a run, and of a mixture its sources; refuse others than it was trained on."""
    manifests = [source.manifest for source in config.data.sources] or [config.data.manifest]
    if gone := [path for path in manifests if not path or not Path(path).is_file()]:
        where = f"{gone[0]}, which is not there any more" if gone[0] else "a data set that its config.yaml does not name"
        raise ConfigError(f"--video {run.path.name} was trained on {where}; the image model needs the same manifest: put "
                          "it back, or give the recipe and --data in place of the run")
    mixed = find_sources_of(config, None, setting[0].catalogue) if config.data.sources else []
    whole = FoundData.joined(mixed) if mixed else FoundData(*read_data(None, config, setting[0]))
    if whole.summary.content_sha256 != content:
        raise ConfigError(f"--video {run.path.name} was trained on other videos than {' and '.join(manifests)} lists now: "
                          f"its content is {whole.summary.content_sha256[:12]}, that of the run {str(content)[:12]}; put "
                          "the manifest of the run back")
    return FoundData(replace(whole.source, name=config.data.name), whole.summary) if not mixed else whole, mixed


def _refuse_no_video(given: str, config: PretrainConfig) -> None:
    if config.model.num_frames == 1:
        raise ConfigError(f"--video {given} is an image model (model.num_frames 1), allowed: a pretraining of a video "
                          "model, a run or a recipe")
    if config.train.init:
        raise ConfigError(f"--video {given} starts from weights (train.init), which an image model cannot take; allowed: a "
                          "video model that starts from scratch")


def _image(args: argparse.Namespace, place: Place, setting: Setting, video: Experiment, schedule: Schedule) -> Experiment:
    """The image model of a video model."""
    config, name = video.config, f"{video.config.name}-image-{args.match}"
    recipe = read_recipe(args.image, PretrainConfig)
    # the video model's objective is not the image model's, nor are controls of time, of which one frame has none
    differs = {key: getattr(ModelConfig, key) for key in OBJECTIVE}
    differs |= {key: value for key, value in recipe.values.get("model", {}).items() if key not in ENCODER}
    layers = [Layer(f"video model {video.run.path.name}", to_dict(config)),
              Layer(recipe.origin, {"model": differs}, recipe.lines)]
    own = _own(args.image_set)
    if (frames := build(PretrainConfig, [*layers, *own])[0].model.num_frames) != 1:
        raise ConfigError(f"--image {args.image} has model.num_frames {frames}, allowed: a recipe of an image model, which "
                          "has 1 (pretrain_s_image_vith14)")
    clips = schedule.total_steps * config.train.global_batch
    windows = {"window_frames": config.model.num_frames, "window_clips": clips}

    def made(**train: Any) -> Experiment:
        layer = Layer("the pair", {"name": name, "data": windows, **({"train": train} if train else {})})
        return assemble(place, setting, [*layers, layer, *own], video.data, video.summary,
                        args.runs_dir.expanduser().absolute(), video.found if config.data.sources else ())

    phases = matched_phases(config.train.phases, args.match, _shown(config, schedule.total_steps), _shown(made().config, 1),
                            schedule)
    image = made(phases=[to_dict(phase) for phase in phases])
    if config.data.order in ONCE and image.plan and image.plan.total_clips > clips:
        raise ConfigError(f"data.order {config.data.order} shows footage once, and the image model would see "
                          f"it {image.plan.total_clips / clips:.3g} times with --match {args.match}; allowed: clips, steps")
    return image


def _own(items: Sequence[str]) -> list[Layer]:
    """What --image-set says; refuse what the two models shall have in common."""
    for item in items:
        key = item.partition("=")[0].strip()
        if not key.startswith(OWN) or (key.startswith(NOT_OWN) and not RATES.fullmatch(key)):
            raise ConfigError(f"--image-set {key} is not allowed: the pair has one data set, seed and order, and --match "
                              "says how long the image model is trained; allowed: model., train. (of train.phases.N the "
                              "rates), data.crop_area, data.workers and what reads videos")
    return parse_set(items, "--image-set")


def _shown(config: PretrainConfig, steps: int) -> Shown:
    return Shown(steps, config.train.global_batch, config.model.num_frames, train_flops_per_clip(config.model.shape()))


def _record(match: PairMatch, video: Experiment, shown: tuple[Shown, Shown]) -> dict[str, Any]:
    """What the image model's run.json says of the pair."""
    of_video, of_image = ({**one.amounts, "global_batch": one.global_batch} for one in shown)
    return {"video": video.run.path.name, "match": match, "of_video": of_video, "of_image": of_image}


def rows(pair: Pair, cost: Callable[[float], str]) -> Iterator[tuple[str, ...]]:
    """A table of the two: what each is and sees, and what is equal.

    Args:
        pair: The two.
        cost: Says FLOPs with a unit.
    """
    video, image = pair.video, pair.image
    models = [one.experiment.config.model for one in (video, image)]
    yield "", "VIDEO", "IMAGE", "EQUAL"
    yield "run", video.run.path.name, image.run.path.name, ""
    yield "state", video.kind, image.kind, ""
    yield "encoder", *(f"{m.name.removeprefix('mae_')}, {m.img_size} px" for m in models), "yes"
    if models[0].target != models[1].target:
        yield "predicts", *(m.target for m in models), "no (model.target)"
    yield "data", *(one.experiment.data.name for one in (video, image)), "yes: one manifest, seed and order"
    for name, values in (("frames a clip", [m.num_frames for m in models]), ("mask ratio", [m.mask_ratio for m in models]),
                         ("decoder", [f"{m.decoder_depth} x {m.decoder_embed_dim}" for m in models]),
                         ("batch", [one.global_batch for one in pair.shown])):
        yield name, *map(str, values), "yes" if values[0] == values[1] else "no"
    for name in get_args(PairMatch):
        one, other = (shown.amounts[name] for shown in pair.shown)
        texts = map(cost if name == "flops" else "{:,}".format, (one, other))
        yield name, *texts, _equal(one, other, "by --match" if name == pair.match else "")


def _equal(one: float, other: float, why: str) -> str:
    if one == other:
        return f"yes, {why}".rstrip(", ")
    near = abs(other / one - 1) < FAR
    by = f"but for rounding: {other / one - 1:+.2g}" if near else f"image {other / one:.4g} times video"
    return f"yes, {why}, {by}" if why else f"no: {by}"


def guarantee(pair: Pair) -> str:
    """What is guaranteed of the frames that the image model sees, in words."""
    (one, other), frames = (shown.amounts["clips"] for shown in pair.shown), pair.shown[0].clip_frames
    turns, of_clips = other / one, f"of the {one:,} clips of the video model"
    again = "where a clip comes again with another frame, crop, flip and mask are drawn anew"
    if turns < 1 + FAR:
        said, again = f"one frame of each {of_clips}", "cut out as the clip is"
        said = said if turns > 1 - FAR else f"one frame of each of the first {other:,} {of_clips}"
    elif turns < frames * (1 - FAR):
        said = f"{turns:.4g} of the {frames} frames of each {of_clips}"
    else:
        times = "once" if abs(turns / frames - 1) < FAR else f"{turns / frames:.4g} times"
        said = f"each of the {frames} frames of each {of_clips}, {times}"
    clip = pair.video.experiment.config.data.clip
    arranged = "" if clip == "normal" else f"; frames are as data.clip {clip} arranges them, and may be equal"
    return f"the image model sees {said}; {again}{arranged}"
