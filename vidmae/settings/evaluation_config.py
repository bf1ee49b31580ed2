"""The schema of the test of a finetuned file. No torch: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vidmae.settings.config import DataConfig
from vidmae.settings.finetune_config import EvaluateConfig
from vidmae.settings.layers import ConfigError


@dataclass(frozen=True)
class EvaluationConfig:
    """One classifier, one labelled set of clips."""

    weights: str = ""
    """A .safetensors export or a released .pth, with a head."""
    weights_content: str = ""
    """Hash of the weights, so that results of other weights under the same path are not taken for these."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the matrix products. fp16 needs a GPU."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    data: DataConfig = field(default_factory=DataConfig)
    """The clips: manifest, sampling rate, frame rate, decoder, processes."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Views."""

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError("--weights is empty, allowed: a .safetensors or .pth file")
