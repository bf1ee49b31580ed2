"""The schema of an embedding: features of which clips, by which encoder. No torch: the launcher reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vidmae.settings.clips_config import ClipsConfig, check


@dataclass(frozen=True)
class EmbedConfig(ClipsConfig):
    """One encoder, the clips of one manifest. Without workers, clips are read in between."""

    fewest_workers: ClassVar[int] = 0

    manifest: str = ""
    """The videos."""
    manifest_content: str = ""
    """Hash of its contents and labels."""
    precision: Literal["bf16", "fp16", "fp32"] = "fp32"
    """Arithmetic of the encoder."""
    batch: int = 16
    """Clips of a forward pass."""
    clips_per_file: int = 512
    """Clips of a file, which is written whole: what an interruption costs at most."""
    layers: tuple[int, ...] = ()
    """Blocks, from 1, whose features are written besides those of the last one."""
    tokens: bool = False
    """Also write the patch tokens, of `layers` or of the last block."""
    token_type: Literal["float16", "float32"] = "float16"
    """Of a number of a token on disk."""
    window_s: float = 0.0
    """Seconds that a clip covers, where windows slide over the recordings; 0: one clip in the middle of each."""
    every_s: float = 0.0
    """Seconds from the start of a window to that of the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.manifest), "--data", self.manifest, "a manifest")
        check(self.batch >= 1, "--batch", self.batch, "1 or more clips")
        check(all(layer >= 1 for layer in self.layers), "--layers", list(self.layers), "numbers from 1, the first block")
        check(len(set(self.layers)) == len(self.layers), "--layers", list(self.layers), "each layer once")
        check(self.window_s >= 0, "--window-s", self.window_s, "more than 0 seconds")
        check((self.every_s > 0) == (self.window_s > 0), "--every-s", self.every_s,
              "more than 0 seconds, together with --window-s")
        check(not self.window_s or not self.sampling_rate, "--sampling-rate", self.sampling_rate,
              "0 (not given) with --window-s, which says how long a clip is")
        check(self.clips_per_file >= 1 and self.clips_per_file % self.batch == 0, "--clips-per-file", self.clips_per_file,
              f"a multiple of --batch ({self.batch})")
