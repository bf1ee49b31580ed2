"""The schema of prepared footage, for jobs that do parts of it. No torch: the launcher reads it."""

from __future__ import annotations

from dataclasses import dataclass

from vidmae.settings.layers import unsigned


@dataclass(frozen=True)
class PrepareConfig:
    """One manifest, and how its footage is prepared; the values are checked by preparation.Preparation."""

    source: str = ""
    """Manifest of the footage."""
    source_content: str = unsigned("")
    """Hash of its contents and labels; a later manifest of the same footage adds archives."""
    manifest: str = ""
    """The manifest to write when all archives are there."""
    fps: float = 3.75
    """Frames per second that are kept."""
    short_side_px: int = 256
    """Of a frame, at most."""
    quality: int = 90
    """Of JPEG."""
    seed: int = 0
    """Of the phases."""
    form: str = "archives"
    """archives or chunks."""
    archive_mib: float = 1024.0
    """About how large an archive becomes."""
    workers: int = unsigned(0)
    """Processes of each job; 0: one for each of its cores."""
    time_limit_s: float = unsigned(0.0)
    """Seconds for one recording; 0: ten minutes, or as long as the recording lasts."""


@dataclass(frozen=True)
class ManifestConfig:
    """A manifest that an array of jobs makes; its files stand in sources.jsonl."""

    manifest: str = ""
    """The manifest to write when all parts are checked."""
    decoder: str = unsigned("auto")
    """auto, or the decoders that may read the files, in the order in which they are tried, with commas between them."""
    verify: bool = unsigned(True)
    """Decode every file in full; else look at one frame."""
    workers: int = unsigned(0)
    """Processes of each job; 0: one for each of its cores."""
    time_limit_s: float = unsigned(600.0)
    """Seconds for one file and decoder."""
