"""The schemas of tests: of a finetuned file on clips, and of a finished cell under conditions. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vidmae.settings.config import DataConfig
from vidmae.settings.finetune_config import EvaluateConfig, FinetuneConfig
from vidmae.settings.layers import ConfigError, check, signed_if_changed, unsigned


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


@dataclass(frozen=True)
class TestedConfig:
    """What a finished cell is tested on."""

    run: str = unsigned("")
    """Folder of the cell. Its signature, not its path, is signed."""
    signature: str = ""
    """Of the cell, or the content hash of `weights`."""
    weights: str = unsigned("")
    """A finetuned file in place of a cell; `run` is empty then."""
    classes_of: str = unsigned("")
    """With `weights`: manifest whose labels are the classes that the file tells apart."""
    classes_content: str = signed_if_changed("")
    """Content hash of the manifest `classes_of`."""
    set_name: str = ""
    """What the tables call the clips."""
    manifest: str = unsigned("")
    """The clips or images. Their content, not their path, is signed."""
    conditions: tuple[str, ...] = ("clean",)
    """What is done to them, such as gaussian_noise:3."""
    group: str = "clean"
    """What the conditions have in common, for the names of folders and tables."""
    label_map: str = unsigned("")
    """CSV with the columns label and class: which classes of the model stand for a label. Its content is signed."""
    label_map_content: str = ""
    """Content hash of `label_map`."""
    own_classes: bool = False
    """The model chooses among the classes of the clips alone; the scores of its other classes are left out."""
    cues: bool = False
    """Each image has the shape of its label, and the texture that its file name says."""
    by_folder: bool = signed_if_changed(True)
    """Folders corruption/severity/class say what was done to the images, where the conditions are clean alone."""

    def __post_init__(self) -> None:
        check(len(self.conditions) >= 1, "tested.conditions", list(self.conditions), "one or more, such as clean")


@dataclass(frozen=True)
class RobustnessConfig(FinetuneConfig):
    """One finished cell and some conditions: all settings of the cell, and what it is tested on."""

    name: str = "robustness"
    """First part of the run folder's name."""
    tested: TestedConfig = field(default_factory=TestedConfig)
