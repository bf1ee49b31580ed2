"""What a cell costs: steps, clips and FLOPs by arithmetic, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.grid.grid import CLUSTER, PROBES, Cell
from vidmae.runs.cost import conv_like, step_flops, train_flops_of_vit, view_flops
from vidmae.runs.plan import split_batch
from vidmae.settings.finetune_config import ClassifierConfig, FinetuneConfig
from vidmae.settings.schedule import Schedule


@dataclass(frozen=True)
class Estimate:
    """What a cell does: optimizer steps (0 for a probe), and FLOPs of training and evaluation together."""

    steps: int
    flops: float


def estimate(cells: Sequence[Cell]) -> list[Estimate]:
    """The cost of each cell; features that several cells share are counted for the first of them."""
    seen: set[tuple[str, str, str]] = set()
    clustered: set[tuple[str, str, str]] = set()  # of these the features of the validation clips alone are there
    before: tuple[ClassifierConfig, float, float] | None = None  # a model, FLOPs of a clip in training and in a test
    found = []
    for cell in cells:
        steps = 0 if cell.method in PROBES else _steps(cell.config, cell.subset.clips)
        model, views = cell.config.model, views_of(cell.config.evaluate.views)
        val = cell.subset.data.val_videos
        if cell.method in PROBES:  # what the head itself costs is left out
            clips = 0 if cell.features in seen else cell.subset.clips + val * (cell.features not in clustered)
            of_clip = views_of(cell.config.probe.views) if cell.method == "attentive" else 1
            found.append(Estimate(steps, clips * of_clip * view_flops(model)))
            (clustered if cell.method == CLUSTER else seen).add(cell.features)
            continue
        if before is None or before[0] is not model:  # the cells of a checkpoint hold the same object
            before = model, step_flops(model), view_flops(model)
        trained = steps * cell.config.train.global_batch * before[1]
        tested = val * views + _looked_at(cell, steps)
        found.append(Estimate(steps, trained + tested * before[2]))
    return found


def conv_said(cell: Cell) -> str:
    """What the convolutional net of a cell is and takes, beside the transformer whose FLOPs it has; empty for others."""
    model = cell.config.model
    if model.net != "conv":
        return ""
    net = conv_like(model.shape())
    by_pct = 100 * (net.train_flops / train_flops_of_vit(model.shape()) - 1)
    return (f"{cell.init.name}: an R(2+1)D of width {net.width}, {net.parameters / 1e6:,.1f} M parameters, "
            f"{net.train_flops / 1e9:,.4g} GFLOP for a clip forward and backward, as {model.name} takes ({by_pct:+.2f} %)")


def views_of(views: str) -> int:
    """Views of one clip: 30 for `10x3`, 16 for `frames16`."""
    if views.startswith("frames"):
        return int(views.removeprefix("frames"))
    times, x, crops = views.partition("x")
    return int(times) * int(crops) if x and times.isdigit() else 1


def check_batch(cell: Cell, world_size: int) -> None:
    """Refuse a batch that the ranks do not share evenly (ValueError)."""
    if cell.method not in PROBES:
        split_batch(cell.config.train.global_batch, world_size, cell.config.train.most_per_pass)


def _steps(config: FinetuneConfig, clips: int) -> int:
    schedule = Schedule.plan(config.train.phases, clips_per_epoch=clips * config.data.repeat_aug,
                             global_batch=config.train.global_batch)
    return schedule.total_steps


def _looked_at(cell: Cell, steps: int) -> int:
    """Clips that the rules holdout and val-best look at on the way."""
    select, config = cell.config.select, cell.config
    if select.rule == "last" or not steps:
        return 0
    every = select.every.steps(clips_per_epoch=cell.subset.clips * config.data.repeat_aug,
                               global_batch=config.train.global_batch)
    clips = cell.subset.data.val_videos if select.rule == "val-best" else int(cell.subset.clips * select.holdout)
    return steps // max(1, every) * clips
