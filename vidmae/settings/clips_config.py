"""What the schemas of programs share that show clips to a trained model: weights, frames, who reads. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vidmae.settings.layers import ConfigError, unsigned


def check(ok: bool, flag: str, value: object, allowed: str) -> None:
    """Refuse a value, with what is allowed and the flag that changes it."""
    if not ok:
        raise ConfigError(f"{flag} is {value!r}, allowed: {allowed}")


@dataclass(frozen=True)
class ClipsConfig:
    """A trained model, and how its clips are cut and read."""

    fewest_workers: ClassVar[int] = 1

    weights: str = ""
    """Run folder, .safetensors export or released .pth."""
    weights_content: str = ""
    """Hash of the weights, so that results of other weights under the same path are not taken for these."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What the catalogue says of the model that its tensors may not: img_size, num_frames, t_patch_size; filled in by the
    launcher where the weights are published ones."""
    sampling_rate: int = 0
    """Frame stride at 30 fps; 0 takes the one that the model was trained with. The paper's pictures have 4."""
    decoder: Literal["auto", "decord", "pyav", "torchcodec"] = "auto"
    """Video reader. auto takes for each file the one that the manifest names; another must have read all files rightly."""
    device: Literal["auto", "cuda", "cpu"] = unsigned("auto")
    """auto takes the GPU that the job was given, and the CPU where it was given none."""
    workers: int = unsigned(1)
    """Processes per rank that read videos."""
    read_limit_s: float = unsigned(60.0)
    """Seconds for reading one clip; then its process is killed and the clip is left out. 0: no limit and no such process."""

    def __post_init__(self) -> None:
        check(bool(self.weights), "--weights", self.weights, "a run folder or a file")
        check(self.sampling_rate >= 0, "--sampling-rate", self.sampling_rate, "1 or more frames, or 0 (that of training)")
        check(self.workers >= self.fewest_workers, "--workers", self.workers, f"{self.fewest_workers} or more processes")
        check(self.read_limit_s >= 0, "read_limit_s", self.read_limit_s, "0 (no limit) or more seconds")
