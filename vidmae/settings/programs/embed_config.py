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

    def __post_init__(self) -> None:
        super().__post_init__()
        check(bool(self.manifest), "--data", self.manifest, "a manifest")
        check(self.batch >= 1, "--batch", self.batch, "1 or more clips")
        check(self.clips_per_file >= 1 and self.clips_per_file % self.batch == 0, "--clips-per-file", self.clips_per_file,
              f"a multiple of --batch ({self.batch})")
