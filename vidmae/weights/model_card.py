"""The model card of exported weights: what they are, what was trained on and for how long, what came of it, which licence.

Data are named by hash, hours and number of videos; names of files, folders and children never stand on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vidmae.model.formats.file_model import FileModel
from vidmae.runs.record import RunFolder, read_json, totals_of_data
from vidmae.settings.layers import read_yaml
from vidmae.weights.finding import Found

LICENCE_UNKNOWN = "unknown"
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
HOW = {
    "vidmae": """import vidmae

model = vidmae.load("FOLDER")
vectors = model.features(clips)  # uint8 [B, T, H, W, 3] to [B, D]""",
    "mae_st": """import torch

state = torch.load("weights.pth", weights_only=True)["model"]  # names of the released code of ST-MAE""",
    "transformers": """from transformers import AutoModel

model = AutoModel.from_pretrained("FOLDER")""",
    "program": """import torch

encoder = torch.export.load("encoder.pt2").module()
out = encoder(clips)  # uint8 [B, T, H, W, 3] to features [B, D], or to class scores where the model has a head"""}
TRAINING = (
    "model.target", "model.mask", "model.mask_ratio", "model.decoder_mask_ratio", "model.temporal_positions",
    "model.norm_pix_loss", "data.sampling_rate", "data.target_fps", "data.repeat_aug", "data.order", "data.clip",
    "train.global_batch", "train.weight_decay", "train.precision", "method", "seed")
"""Settings that stand on the card."""
RESULTS = {"weights_of": "weights of", "top1_pct": "top-1 accuracy, %", "top5_pct": "top-5 accuracy, %",
           "last_loss": "loss of the last step", "steps": "optimizer steps", "epochs": "epochs", "clips": "clips",
           "classes": "classes"}


@dataclass(frozen=True)
class Card:
    """What is known of weights beside their tensors.

    Attributes:
        name: Of the model; empty: its sizes and the run's signature are its name.
        licence: As hubs name it, such as `cc-by-nc-4.0`, or a text.
        training: Settings and data, by what they are called.
        results: Numbers of the run, by what they are called.
        source: Where the weights are from, for published ones.
        signature: Of the run.
    """

    name: str = ""
    licence: str = LICENCE_UNKNOWN
    training: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    signature: str = ""


def card_of(found: Found, licence: str = "", name: str = "") -> Card:
    """What a run's records, or the catalogue, say of weights.

    Args:
        found: From `finding.find`.
        licence: What the user says; the catalogue's else.
        name: What the user calls the model. Names of files and runs are not taken: they may name data.
    Raises:
        ValueError: The licence is no word that hubs know as one.
    """
    if licence and not LICENCE_ID.fullmatch(licence):
        raise ValueError(f"--licence {licence!r} is none, allowed: lower-case letters, digits, dots and dashes, such as "
                         "cc-by-4.0")
    if entry := found.entry:
        return Card(name or found.name, licence or entry.licence, {"trained on": entry.trained_on}, {}, entry.source)
    run = RunFolder(found.path)
    if not found.path.is_dir() or not run.config.is_file():
        return Card(name, licence or LICENCE_UNKNOWN)
    config, record, result = read_yaml(run.config).values, read_json(run.record) or {}, read_json(run.result) or {}
    training = {key: value for key in TRAINING if (value := _setting(config, key)) is not None} | _data(record)
    results = {label: result[key] for key, label in RESULTS.items() if key in result}
    return Card(name, licence or LICENCE_UNKNOWN, training, results, signature=str(record.get("signature", "")))


def to_markdown(card: Card, model: FileModel, form: str) -> str:
    """The card, with the header that hubs read."""
    s = model.shape
    sizes = {"model": s.name, "clip": f"{s.num_frames} frames of {s.img_size} px",
             "a token": f"{s.t_patch_size} frames x {s.patch_size} px", "positions": s.positions,
             "classes of its head": model.head or "none", "decoder": "yes" if model.pretrained else "no"}
    library = "transformers" if form == "transformers" else "vidmae"
    source = f" From {card.source}." if card.source else ""
    licence = [f"license: {json.dumps(card.licence)}"] if LICENCE_ID.fullmatch(card.licence) else [
        "license: other", f"license_name: {json.dumps(card.licence)}"]
    name = card.name or "-".join(filter(None, [s.name, card.signature]))
    tables = [("Sizes", sizes), ("Training", card.training), ("Results", card.results)]
    return "\n".join([
        "---", *licence, f"library_name: {library}", "tags: [video, self-supervised-learning]", "---", "",
        f"# {name}", "", f"A video encoder.{source} Licence: {card.licence}.", "",
        *(line for title, rows in tables if rows for line in _table(title, rows)),
        "## Use", "", "```python", HOW[form], "```", ""])


def _table(title: str, rows: Mapping[str, Any]) -> list[str]:
    lines = (f"| {key} | {_text(value)} |" for key, value in rows.items())
    return [f"## {title}", "", "| what | value |", "|---|---|", *lines, ""]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _setting(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _data(record: Mapping[str, Any]) -> dict[str, Any]:
    """The data by its hash and amount."""
    found: dict[str, Any] = {}
    if content := record.get("content_sha256"):
        found["data, SHA-256 of the contents"] = content
    if "videos" in record:
        found["videos"] = record["videos"]
    if seconds := totals_of_data(record).get("seconds"):
        found["hours of video"] = seconds / 3600
    return found
