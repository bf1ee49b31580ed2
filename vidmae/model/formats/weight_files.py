"""What files of weights are called, and which of them a folder holds. No torch here: launchers ask."""

from __future__ import annotations

import re
from pathlib import Path

ENDINGS = (".safetensors", ".pth", ".pt", ".pyth", ".bin", ".tar")
"""Of a file of weights; a path with one of them is none of a run."""
FILES_OF_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""As transformers writes them; config.json beside them says what clips the model takes."""
MODEL_FILE = re.compile(r"(?:zero_pp_rank_\d+_)?mp_rank_(\d+)_model_states\.pt$")
RANK_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_(model|optim)_states\.pt$")


def folder_with_shards(path: Path) -> Path | None:
    """The folder that holds deepspeed's files: this one, the one that its file `latest` names, or the only one in it that
    does; None where there is none."""
    latest = path / "latest"
    tag = latest.read_text().strip() if latest.is_file() else ""
    inner = [path / tag] if tag and "/" not in tag else sorted(each for each in path.iterdir() if each.is_dir())
    having = [each for each in (path, *inner)
              if each.is_dir() and any(MODEL_FILE.match(file.name) for file in each.iterdir())]
    return having[0] if len(having) == 1 or having[:1] == [path] else None


def shards_in(path: Path) -> Path | None:
    """The folder of shards that a path means: where it has no file of FILES_OF_FOLDER, which comes first. None for files."""
    return folder_with_shards(path) if path.is_dir() and not _has_file(path) else None


def holds_weights(folder: Path) -> bool:
    """Whether `weights.load_state` can read a folder: one of a hub, or of deepspeed's checkpoints."""
    return _has_file(folder) or folder_with_shards(folder) is not None


def _has_file(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES_OF_FOLDER)
