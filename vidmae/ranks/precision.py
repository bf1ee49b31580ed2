"""The arithmetic of a run whose train.precision is auto: chosen once, where the run starts, and kept.

On a GPU auto is bf16. On a CPU it is what multiplies faster there: some processors have fast 16-bit products (AMD since
Zen 4, Intel with AMX), on others they are slower than float32. A run that goes on, on whatever processor, keeps what it
began with: precision.json in the run folder says what that is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from vidmae.runs.record import SCHEMA, RunFolder, read_json, write_json

if TYPE_CHECKING:
    from vidmae.ranks.dist import Ranks
    from vidmae.settings.config import RunConfig

AUTO = "auto"
CLEARLY = 1.2  # times as fast as float32 must 16 bits be: less is noise, and float32 is the more exact
C = TypeVar("C", bound="RunConfig")


def assumed(precision: str, *, on_cpu: bool) -> str:
    """What estimates count with before a run has chosen: on a CPU float32, which takes the more memory."""
    return precision if precision != AUTO else "fp32" if on_cpu else "bf16"


def choose(rates: dict[str, float]) -> str:
    """bf16 where it is clearly faster, else fp32; `rates` has FLOP/s by precision."""
    return "bf16" if rates["bf16"] > CLEARLY * rates["fp32"] else "fp32"


def with_precision(run: RunFolder, config: C, ranks: Ranks) -> C:
    """The configuration with a precision in place of auto. Collective.

    Args:
        run: The run folder; precision.json is written there.
        config: Of the run.
        ranks: All ranks; the first one measures, after `train.threads` is set.
    """
    if config.train.precision != AUTO:
        return config
    record = ranks.from_main(_recorded(run, ranks) if ranks.is_main else None)
    if ranks.is_main:
        print(f"train.precision auto: {record['precision']} ({record['why']})", flush=True)
    return replace(config, train=replace(config.train, precision=record["precision"]))


def _recorded(run: RunFolder, ranks: Ranks) -> dict[str, str]:
    """What the run began with; chosen and written where it begins now."""
    there = read_json(run.precision)
    if there is not None:
        return {"precision": there["precision"], "why": "what the run began with"}
    if ranks.device.type == "cuda":
        found = {"precision": "bf16", "why": "on a GPU"}
    else:
        rates = measured_rates(ranks)
        said = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
        found = {"precision": choose(rates), "why": f"matrix products on this CPU: {said}"}
    write_json(run.precision, {"schema": SCHEMA, "precision": found["precision"]})
    return found


def measured_rates(ranks: Ranks) -> dict[str, float]:
    """FLOP/s of a square matrix product on the device, by precision."""
    import torch

    from vidmae.runs.metrics import measure_gemm_flops

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {name: measure_gemm_flops(ranks.device, dtype) for name, dtype in kinds.items()}
