"""What a run chooses once for the device where it begins, and keeps when it goes on: choices.json in its folder.

    compile         whether the blocks are compiled; compiled arithmetic rounds differently
    attention       the fused attention kernel on a GPU
    micro_batch     clips per forward pass with train.micro_batch auto, and on which device; another device finds its own

A setting that says more than `auto` wins, and is what the run goes on with. A run on a CPU that compiles nothing chooses
nothing, and has no such file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vidmae.model import compiled
from vidmae.ranks.dist import Ranks
from vidmae.runs.record import SCHEMA, RunFolder, read_json, write_json
from vidmae.settings.config import TrainConfig


def read_choices(run: RunFolder) -> dict[str, Any]:
    """What was chosen so far."""
    return read_json(run.choices) or {}


def keep_choice(run: RunFolder, ranks: Ranks, **chosen: Any) -> None:
    """Write choices down beside those of before; rank 0 does it."""
    if ranks.is_main:
        before = read_choices(run)
        if any(before.get(key) != value for key, value in chosen.items()):
            write_json(run.choices, {"schema": SCHEMA, **before, **chosen})


def compiles(run: RunFolder, train: TrainConfig, ranks: Ranks, say: Callable[[str], None]) -> bool:
    """Whether this run compiles, from train.compile and from what it began with. Collective.

    Args:
        run: The run folder; the choice is written there.
        train: The recipe's section.
        ranks: All ranks; a rank that cannot compile speaks for all.
        say: Told why.
    Raises:
        ValueError: It is to compile and cannot; the message says why and what would do.
    """
    chosen, began = ranks.on_main(lambda: (read_choices(run), run.metrics.exists()))
    before = chosen.get("compile", False if began else None)
    on_gpu = ranks.device.type == "cuda"
    if train.compile == "auto":
        wanted = before if before is not None else on_gpu and train.zero_stage < 3
        if before is not None and (before or on_gpu):
            say(f"train.compile auto: {str(before).lower()} (what the run began with)")
        elif on_gpu and not wanted:
            say("train.compile auto: false (ZeRO 3 gathers weights inside the blocks; ZeRO 1 and 2 compile)")
    else:
        wanted = bool(train.compile)
    problem = ranks.first(compiled.why_not(ranks.device)) if wanted else None
    if wanted and train.zero_stage == 3:
        problem = "train.zero_stage is 3, which gathers weights inside the blocks; 0 to 2 can compile"
    if train.compile == "graphs" and not on_gpu:
        problem = "this run is on a CPU, which has no CUDA graphs; true compiles there"
    if problem and train.compile == "auto" and before is None:
        say(f"train.compile auto: false ({problem})")
        wanted = False
    elif problem:
        as_then = ", as the run began" if train.compile == "auto" else ""
        raise ValueError(f"train.compile is {str(train.compile).lower()} and this run is to compile{as_then}, but {problem} "
                         "(--set train.compile=false goes on without, with other rounding)")
    if wanted or "compile" in chosen:  # a run that began eagerly has no word on it, and stays eager without one
        keep_choice(run, ranks, compile=bool(wanted))
    return bool(wanted)
