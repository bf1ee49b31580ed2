"""The schema of a cell of a few-shot sweep: one pretrained model, one k-shot subset, one way to learn from it.

Defaults are those of the paper's few-shot runs (Orhan et al. 2024, released code). No torch here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from vidmae.settings.config import DataConfig, NetConfig, RunConfig, TrainConfig
from vidmae.settings.layers import check, signed_if_changed, unsigned
from vidmae.settings.schedule import Duration, Phase
from vidmae.settings.sizes import EncoderShape, Positions, encoder_shape

Net = Literal["vit", "conv"]
Method = Literal["finetune", "linear", "knn", "attentive", "cluster"]
Rule = Literal["last", "holdout", "val-best"]
EPOCH = Duration(1, "epochs")
VIEWS = re.compile(r"center|random|[1-9]\d*x[13]|frames[1-9]\d*")
VIEW_WORDS = "center, random, TxS with S 1 or 3, or framesN"
PROBE_VIEWS = re.compile(r"center|[1-9]\d*x[13]")


@dataclass(frozen=True)
class ClassifierConfig(NetConfig):
    """The network and what stands on it. A checkpoint brings name, img_size, num_frames, t_patch_size, positions,
    temporal_positions and net."""

    net: Net = signed_if_changed("vit")  # noqa: RUF009  (it is dataclasses.field)
    """vit: the transformer that model.name says. conv: a convolutional net, an R(2+1)D, so wide that a step of finetuning
    takes the FLOPs of that transformer; --checkpoints conv sets it."""
    positions: Positions = signed_if_changed("learned")  # noqa: RUF009  (it is dataclasses.field)
    """learned: tables of space and time, and a class token (ST-MAE). fixed: a table of sines, and no class token (VideoMAE,
    V-JEPA). rotary: queries and keys are turned by their place, and no class token (V-JEPA 2)."""
    temporal_positions: bool = signed_if_changed(True)
    """Learned positions have a table of time. false leaves it out, as the pretraining of a checkpoint did."""
    pool: Literal["cls", "mean"] = "cls"
    """What the head sees: the class token of the last block, or the mean of its patch tokens (global pooling)."""
    dropout: float = 0.3
    """Chance to zero a number of the head's input in training."""
    drop_path: float = 0.1
    """Chance to skip a branch of the last block in training; it grows linearly from 0 in the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pool == "mean" or self.positions == "learned", "model.pool", self.pool,
              f"mean with model.positions {self.positions}, which has no class token")
        check(self.temporal_positions or self.positions == "learned", "model.temporal_positions", self.temporal_positions,
              f"true with model.positions {self.positions}, where one table holds space and time")
        if self.net == "conv":
            check(self.pool == "mean", "model.pool", self.pool, "mean with model.net conv, which has no class token")
            check(self.positions == "learned" and self.temporal_positions, "model.net", self.net,
                  f"vit with model.positions {self.positions} and model.temporal_positions {self.temporal_positions}; a "
                  "convolutional net has no tables of positions")
        check(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and below 1")
        check(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "at least 0 and below 1")

    @property
    def unsaid(self) -> dict[str, Any]:
        """The sizes, positions and pool where the tensors of an export do not say all of them; empty where they do."""
        keys = ["name", "img_size", "num_frames", "t_patch_size", "positions"]
        more = [key for key, usual in (("net", "vit"), ("temporal_positions", True)) if getattr(self, key) != usual]
        if self.positions == "learned":  # the others have mean alone
            if self.pool == "cls" and not more:
                return {}
            keys.append("pool")
        return {key: getattr(self, key) for key in (*keys, *more)}

    def shape(self) -> EncoderShape:
        """Sizes and token arithmetic; with net conv those of the transformer whose FLOPs it has.

        Raises:
            ValueError: Sizes do not divide, or the name is unknown.
        """
        return encoder_shape(self.name, img_size=self.img_size, num_frames=self.num_frames, t_patch_size=self.t_patch_size,
                             positions=self.positions, temporal_positions=self.temporal_positions)


@dataclass(frozen=True)
class LabelledConfig(DataConfig):
    """The labelled clips: a k-shot subset to learn from, and a validation set."""

    name: str = "ssv2"
    """Name of the data set in the catalogue; the validation set is NAME-val."""
    val_manifest: str = unsigned("")
    """Manifest of the validation clips; filled in by the launcher. Its content, not its path, is signed."""
    subset: str = unsigned("")
    """File of the k-shot subset; empty takes all clips of the training manifest. Its content is signed."""
    shots: int = 10
    """Labelled clips per class; 0 where all clips of the manifest are used, or a share of them."""
    fraction: float = signed_if_changed(0.0)
    """Share of the labelled clips of each class, drawn once; 0 where shots say how many."""
    prepared: str = signed_if_changed("")
    """How the clips were prepared before cells read them, such as 256px-15fps-q90; empty: cells read the files. Filled in by
    --prepare."""
    archives: str = unsigned("")
    """Folder of the prepared clips; filled in by the launcher."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Share of the frame's area that the random resized crop keeps, lowest and highest."""
    flip_prob: float = 0.5
    """Probability of a horizontal flip, as in the paper; 0 where labels say left or right, as some of ssv2's do."""
    repeat_aug: int = 1
    """Clips cut from each opened video."""
    mixup: float = 0.0
    """Mixup's alpha: clips and labels are blended by a Beta(alpha, alpha) share; 0 is off."""
    cutmix: float = 0.0
    """CutMix's alpha: a box of another clip is pasted in; 0 is off. With mixup on as well, each batch takes one of them."""
    rand_augment: int = 0
    """RandAugment's operations per clip, the same ones on all of its frames; 0 is off."""
    rand_magnitude: float = 9.0
    """RandAugment's magnitude, 0 to 30."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.shots >= 0, "data.shots", self.shots, "0 (all clips) or more clips per class")
        check(0 <= self.fraction < 1, "data.fraction", self.fraction, "0 (data.shots says how many) to below 1")
        check(not self.fraction or not self.shots, "data.fraction", self.fraction, "0 where data.shots is more than 0")
        check(self.mixup >= 0, "data.mixup", self.mixup, "0 (off) or more")
        check(self.cutmix >= 0, "data.cutmix", self.cutmix, "0 (off) or more")
        check(self.rand_augment >= 0, "data.rand_augment", self.rand_augment, "0 (off) or more operations")
        check(0 <= self.rand_magnitude <= 30, "data.rand_magnitude", self.rand_magnitude, "0 to 30")


@dataclass(frozen=True)
class FinetuneTrainConfig(TrainConfig):
    """Optimisation of a classifier."""

    phases: tuple[Phase, ...] = (Phase(Duration(20, "epochs"), lr=None, blr=1.2e-3),)
    """What is trained in which order; the paper's runs had a constant rate until their wall time was over."""
    global_batch: int = 32
    """Clips per optimizer step, over all ranks; kept whatever the number of GPUs."""
    micro_batch: Literal["auto"] | int = unsigned(16)
    """Clips per rank and forward pass, at most, or auto; grad_accum follows from it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging factors."""
    clip_grad: float = 5.0
    """Largest global gradient norm; 0 does not clip."""
    layer_decay: float = 0.8
    """Factor of the learning rate from one layer to the one below; 1 lets all layers learn alike."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""
    init: str = unsigned("")
    """Weights to start from; empty starts from scratch. Their content, not their path, is signed."""
    init_content: str = ""
    """Content hash of `init` (manifest.content_hash); filled in by the launcher."""
    init_name: str = unsigned("scratch")
    """What the tables call the weights; filled in by the launcher."""
    resize_positions: bool = False
    """Take weights of another image size or number of frames: position tables are interpolated (bicubic in space, linear in
    time)."""
    inflated: Literal["no", "centre", "mean"] = signed_if_changed("no")
    """How a model of several frames takes an image model: each token sees the middle one of its frames, or their mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.layer_decay <= 1, "train.layer_decay", self.layer_decay, "above 0 and at most 1")
        check(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "at least 0 and below 1")


@dataclass(frozen=True)
class SelectConfig:
    """Which state of the model is tested. Every table says which rule it was."""

    rule: Rule = "last"
    """last: the last step; holdout: the best on a held-out part of the training clips; val-best: the best on the
    validation set, as in the paper, which flatters the result."""
    holdout: float = 0.2
    """Share of each class's training clips that rule holdout keeps back, one at least."""
    every: Duration = EPOCH
    """How often the rules holdout and val-best look."""
    patience: int = 0
    """Looks without a better top-1 after which training stops; 0 never stops early."""

    def __post_init__(self) -> None:
        check(0 < self.holdout < 1, "select.holdout", self.holdout, "between 0 and 1, both excluded")
        check(self.patience >= 0, "select.patience", self.patience, "0 (never) or more looks")
        check(self.patience == 0 or self.rule != "last", "select.patience", self.patience,
              "0 with select.rule last, which never looks")


@dataclass(frozen=True)
class EvaluateConfig:
    """How a model is tested on the validation set. The same numbers every time, on any number of ranks."""

    views: str = "center"
    """center: one view; random: the paper's random time, crop and flip, with a fixed seed per clip; TxS, such as 10x3:
    T times and S crops (1 or 3), whose softmax is averaged; framesN, such as frames16: for models of single frames, the N
    frames of the centre view one by one, whose scores before the softmax are averaged, as in the paper."""
    seed: int = 0
    """Of the random view."""
    batch: int = unsigned(16)
    """Views of one forward pass."""

    def __post_init__(self) -> None:
        check(VIEWS.fullmatch(self.views) is not None, "evaluate.views", self.views, VIEW_WORDS)
        check(self.seed >= 0, "evaluate.seed", self.seed, "0 or more")
        check(self.batch >= 1, "evaluate.batch", self.batch, "1 or more views")


@dataclass(frozen=True)
class ProbeConfig:
    """Learning on frozen features."""

    neighbors: int = 20
    """knn: neighbours that vote, at most; there are no more than training clips."""
    temperature: float = 0.07
    """knn: votes weigh exp(cosine similarity / temperature)."""
    folds: int = 5
    """linear: folds of the cross-validation, on training clips alone, that chooses the penalty; no more than shots."""
    token_grid: tuple[int, int, int] = (8, 4, 4)
    """attentive: tokens kept per clip, time x height x width; the encoder's grid is averaged to it."""
    epochs: int = 20
    """attentive: passes over the training clips, after the last of which it is tested."""
    lr: float = 1e-3
    """attentive: learning rate at the start, which falls to 0 along a cosine."""
    weight_decay: float = 0.05
    """attentive: AdamW weight decay; biases and 1-D parameters have none."""
    batch: int = 64
    """attentive: clips per step, at most; there are no more than training clips."""
    blocks: int = signed_if_changed(0)
    """attentive: 0 is one query over the tokens and a linear head. N is N - 1 blocks of self-attention over the tokens, then
    a block in which the query looks at them, and a linear head; V-JEPA 2 has 4."""
    heads: int = signed_if_changed(16)
    """attentive with blocks: heads of each attention; a divisor of the width of the encoder."""
    lrs: tuple[float, ...] = signed_if_changed(())
    """attentive: learning rates that are trained at once, each with all weight_decays. The best on a held-out share
    (select.holdout) of the labelled clips is trained anew on all of them. Empty: probe.lr alone."""
    weight_decays: tuple[float, ...] = signed_if_changed(())
    """attentive: weight decays that are trained at once, each with all lrs. Empty: probe.weight_decay alone."""
    views: str = signed_if_changed("center")
    """attentive: center, or TxS such as 2x3, T times and S crops (1 or 3) of a clip. Each step of training sees one of them,
    drawn; a test averages the softmax of all."""
    restarts: int = signed_if_changed(10)
    """cluster: starts of k-means, of which the one with the tightest clusters counts."""
    features: str = unsigned("")
    """Folder of the features that were extracted before; filled in by the launcher."""

    def __post_init__(self) -> None:
        check(self.neighbors >= 1, "probe.neighbors", self.neighbors, "1 or more")
        check(self.temperature > 0, "probe.temperature", self.temperature, "more than 0")
        check(self.folds >= 2, "probe.folds", self.folds, "2 or more")
        check(min(self.token_grid) >= 1, "probe.token_grid", list(self.token_grid), "three numbers, 1 or more")
        check(self.epochs >= 1, "probe.epochs", self.epochs, "1 or more")
        check(self.lr > 0, "probe.lr", self.lr, "more than 0")
        check(self.weight_decay >= 0, "probe.weight_decay", self.weight_decay, "0 or more")
        check(self.batch >= 1, "probe.batch", self.batch, "1 or more clips")
        check(self.blocks >= 0, "probe.blocks", self.blocks, "0 (one query alone) or more blocks")
        check(self.heads >= 1, "probe.heads", self.heads, "1 or more")
        check(all(lr > 0 for lr in self.lrs), "probe.lrs", list(self.lrs), "numbers above 0")
        check(all(decay >= 0 for decay in self.weight_decays), "probe.weight_decays", list(self.weight_decays),
              "numbers from 0")
        check(PROBE_VIEWS.fullmatch(self.views) is not None, "probe.views", self.views, "center, or TxS with S 1 or 3")
        check(self.restarts >= 1, "probe.restarts", self.restarts, "1 or more")


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """One cell of a sweep."""

    name: str = "fewshot"
    """First part of the run folder's name; the sweep puts model, data, shots, seed and method there."""
    method: Method = "finetune"
    """finetune: all weights; linear, knn, attentive: on frozen features; cluster: k-means on frozen features of the test
    clips, without labels."""
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    data: LabelledConfig = field(default_factory=LabelledConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    select: SelectConfig = field(default_factory=SelectConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    keep_weights: bool = unsigned(False)
    """Keep the finetuned weights; a sweep over ViT-H would fill a disk with them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.method == "finetune" or self.select.rule == "last", "select.rule", self.select.rule,
              f"last with method {self.method}, which has no looks")
        check(self.method == "finetune" or self.evaluate.views == "center", "evaluate.views", self.evaluate.views,
              f"center with method {self.method}: frozen features are those of the centre view")
