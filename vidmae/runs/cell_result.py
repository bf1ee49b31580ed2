"""What a finished cell leaves: predictions.npz, and result.json, which exists exactly when the cell is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from vidmae.runs.accuracy import topk_ci_pct, topk_pct
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import SCHEMA, RunFolder, job_id, read_json, touch_heartbeat, write_json
from vidmae.settings.finetune_config import FinetuneConfig

KIND = "fewshot"


@dataclass(frozen=True)
class Learned:
    """How a cell came to its predictions.

    Attributes:
        train_clips: Clips it learned from.
        steps: Optimizer steps; None for methods without.
        selected_step: The step whose weights were tested; None for methods without.
        train_s: Seconds of learning, without what was lost.
        eval_s: Seconds of the final test.
        world_size: Ranks.
    """

    train_clips: int
    steps: int | None
    selected_step: int | None
    train_s: float
    eval_s: float
    world_size: int


def write_cell_result(run: RunFolder, config: FinetuneConfig, predictions: Predictions, learned: Learned,
                      more: Mapping[str, object] | None = None) -> None:
    """Write what was found; rank 0 alone.

    Args:
        run: The run folder.
        config: Its configuration.
        predictions: One row per validation clip.
        learned: How they came about.
        more: What a method has to say besides.
    """
    predictions.write(run.predictions)
    identity = read_json(run.record) or {}
    write_json(run.result, {
        "schema": SCHEMA, "kind": KIND, "name": config.name, "cell": identity.get("cell") or cell_of(config),
        "select": config.select.rule, "views": config.evaluate.views,
        "top1_pct": topk_pct(predictions, 1), "top5_pct": topk_pct(predictions, 5),
        "top1_ci_pct": topk_ci_pct(predictions, 1), "top5_ci_pct": topk_ci_pct(predictions, 5),
        "clips": len(predictions), "classes": len(predictions.classes), **asdict(learned),
        "precision": config.train.precision, "commit": identity.get("commit"), "dirty": identity.get("dirty"),
        "job_id": job_id(), "finished": time.time(), **(more or {}),
    })
    touch_heartbeat(run, state="done", step=learned.steps or 1, total_steps=learned.steps or 1)


def cell_of(config: FinetuneConfig) -> dict[str, object]:
    """A cell's place in a grid, where no sweep has written it to run.json."""
    return {"checkpoint": config.train.init_name, "checkpoint_content": config.train.init_content,
            "data": config.data.name, "shots": config.data.shots, "seed": config.seed, "method": config.method,
            "overrides": {}, "sweep": "", **({"fraction": config.data.fraction} if config.data.fraction else {})}
