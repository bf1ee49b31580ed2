"""The schema of an embedding: features of which clips, by which encoder. No torch: the launcher reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidmae.interpolate_config import check
from vidmae.layers import unsigned


@dataclass(frozen=True)
class EmbedConfig:
    """One encoder, the clips of one manifest."""

    weights: str = ""
    """Run folder, .safetensors export, released .pth, pretrained or finetuned."""
    weights_content: str = ""
    """Hash of the weights, so that features of other weights under the same path are not taken for these."""
    manifest: str = ""
    """The videos."""
    manifest_content: str = ""
    """Hash of its contents and labels."""
    sampling_rate: int = 0
    """Frame stride at 30 fps; 0 takes the one that the model was trained with."""
    decoder: Literal["", "decord", "pyav"] = ""
    """Video reader; empty takes the one of training, or decord."""
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    """Arithmetic of the encoder."""
    batch: int = 16
    """Clips of a forward pass."""
    clips_per_file: int = 512
    """Clips of a file, which is written whole: what an interruption costs at most."""
    device: Literal["auto", "cuda", "cpu"] = unsigned("auto")
    """auto takes the GPU that the job was given, and the CPU where it was given none."""
    workers: int = unsigned(1)
    """Processes per rank that read videos; 0 reads in between."""
    read_limit_s: float = unsigned(60.0)
    """Seconds for reading one clip; then its process is killed and the clip is left out. 0: no limit and no such process."""

    def __post_init__(self) -> None:
        check(bool(self.weights), "--weights", self.weights, "a run folder or a file")
        check(bool(self.manifest), "--data", self.manifest, "a manifest")
        check(self.sampling_rate >= 0, "--sampling-rate", self.sampling_rate, "1 or more frames, or 0 (that of training)")
        check(self.batch >= 1, "--batch", self.batch, "1 or more clips")
        check(self.clips_per_file >= 1 and self.clips_per_file % self.batch == 0, "--clips-per-file", self.clips_per_file,
              f"a multiple of --batch ({self.batch})")
        check(self.workers >= 0, "--workers", self.workers, "0 or more processes")
        check(self.read_limit_s >= 0, "read_limit_s", self.read_limit_s, "0 (no limit) or more seconds")
