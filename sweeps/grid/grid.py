"""The cells of a sweep: checkpoint x data set x shots (or shares) x seed x method x overrides. Pure: no file is touched.

A cell is a configuration (vidmae/settings/finetune_config.py) and the run folder that follows from it. Two cells are the
same exactly where their signatures are: the settings, the content of the weights, of the k-shot subset and of the
validation set.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from sweeps.grid.axes import read_axes
from vidmae.evaluate.feature_cache import feature_spec
from vidmae.footage.manifest import AUTO, decoder_problem, read_summary
from vidmae.preparing.preparation import Preparation
from vidmae.runs.cell_record import amount_of
from vidmae.runs.cost import step_flops
from vidmae.runs.record import signature_of_text
from vidmae.settings.config import NO_TIME_TABLE
from vidmae.settings.finetune_config import ClassifierConfig, FinetuneConfig, Method
from vidmae.settings.layers import ConfigError, Layer, build, parse_set
from vidmae.settings.texts_of_cells import Texts

KIND = "fewshot"
PROBES = tuple(method for method in get_args(Method) if method != "finetune")  # on frozen features: one process, no looks
CLUSTER = "cluster"  # the method that learns from no labelled clip: one cell for all shots
SEVERAL_FRAMES = "a model of several frames"  # origin of evaluate.views where framesN was asked of such a model
FILLED_IN = {  # what the sweep itself sets: key -> what to use instead of --set
    "name": "the names follow from the cells", "seed": "--seeds", "method": "--method", "data.name": "--data",
    "data.manifest": "--data", "data.val_manifest": "--data", "data.shots": "--shots", "data.subset": "--shots",
    "data.fraction": "--fractions",
    "data.prepared": "--prepare", "data.archives": "--prepare",
    "train.init": "--checkpoints", "train.init_content": "--checkpoints", "train.init_name": "--checkpoints",
    "select.rule": "--select", "evaluate.views": "--views", "probe.features": "it is features/ beside the runs",
}


@dataclass(frozen=True)
class Init:
    """What a model starts from.

    Attributes:
        name: In tables and in the names of run folders.
        weights: The file; empty starts from scratch.
        content: `run:` and the run's signature, or the content hash of a file; empty for scratch.
        settings: What it says of the model and its clips: sections of FinetuneConfig.
        after: Slurm job that still has to write the weights, or empty.
        pair: Of an image model that is matched to a video model: by what, and to which run; or empty.
        taken: What its file does not say of its clips and was taken as in the released models; or empty.
        grid: Of a run of a pretraining grid: its place in it, `name`, `settings` and `repeat`.
    """

    name: str
    weights: str = ""
    content: str = ""
    settings: Mapping[str, Any] | None = None
    after: str = ""
    pair: str = ""
    taken: str = ""
    grid: Mapping[str, Any] | None = None

    def content_as(self, m: ClassifierConfig) -> str:
        """What tables tell checkpoints apart by: the content. Random weights have none, but networks of different shape or
        kind are not the same.

        Args:
            m: The model of the cell.
        """
        return self.content or (f"{'conv' if m.net == 'conv' else 'scratch'}:{m.name}-{m.img_size}px-{m.num_frames}x"
                                f"{m.t_patch_size}{'' if m.temporal_positions else f'-{NO_TIME_TABLE}'}")


@dataclass(frozen=True)
class LabelledSet:
    """A labelled data set of the catalogue.

    Attributes:
        name: Its name; that of the validation set is NAME-val.
        manifest: Of the clips to learn from.
        val_manifest: Of the clips to test on.
        content: Content hash of the first.
        val_content: Content hash of the second.
        videos: Clips to learn from.
        val_videos: Clips to test on.
        classes: Of the first.
        pictures: Whether it has pictures and no videos.
        clip_ms: CPU time of reading a clip to learn from; 0 where it was not measured.
        prepared: Whether its clips are prepared footage.
        prepared_of: Content hashes of the two manifests that its clips were prepared from; None for clips as they are.
    """

    name: str
    manifest: Path
    val_manifest: Path
    content: str
    val_content: str
    videos: int
    val_videos: int
    classes: int
    pictures: bool = False
    clip_ms: float = 0.0
    prepared: bool = False
    prepared_of: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Subset:
    """The clips that a cell learns from.

    Attributes:
        data: Where they are from.
        shots: Per class; 0 is all clips, or a share of them.
        seed: Of the draw and of the training.
        path: The subset's file; empty for all clips.
        content: Content hash of the subset.
        clips: How many.
        fraction: Share of each class; 0 where `shots` says how many.
    """

    data: LabelledSet
    shots: int
    seed: int
    path: str
    content: str
    clips: int
    fraction: float = 0.0

    @property
    def amount(self) -> str:
        """In a table: shots per class, `2%` or `all`."""
        return amount_of(self.shots, self.fraction)

    @property
    def without_clips(self) -> Subset:
        """Nothing to learn from, whatever the shots are."""
        return replace(self, shots=0, path="", content="", clips=0, fraction=0.0)


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        init: What it starts from.
        subset: What it learns from.
        config: All settings.
        overrides: The settings that were given for the sweep, `key=value` each.
        signature: Eight hex digits; see the module.
        origins: Where each setting comes from.
    """

    kind: ClassVar[str] = KIND
    headings: ClassVar[tuple[str, str, str, str]] = ("CHECKPOINT", "DATA", "METHOD", "SHOTS")

    init: Init
    subset: Subset
    config: FinetuneConfig
    overrides: tuple[str, ...]
    signature: str
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def method(self) -> str:
        """finetune, linear, knn, attentive or cluster."""
        return self.config.method

    @property
    def run_id(self) -> str:
        """Name of its run folder."""
        return f"{self.config.name}-{self.signature}"

    @property
    def tail(self) -> str:
        """The part of the name that does not depend on what the checkpoint is called."""
        return f"-{_tail(self.subset, self.method)}-{self.signature}"

    @property
    def features(self) -> tuple[str, str, str]:
        """What the features of a probe are, and of which clips: cells with equal values share them."""
        return feature_spec(self.config).folder_name, self.subset.data.content, self.subset.data.val_content

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Its line in tables."""
        amount = "none" if self.method == CLUSTER else self.subset.amount
        return self.init.name, self.subset.data.name, self.method, amount

    @property
    def one_process(self) -> bool:
        """Probes are fitted by one process."""
        return self.method in PROBES

    @property
    def after(self) -> str:
        """Slurm job that still has to write its weights, or empty."""
        return self.init.after

    @property
    def source(self) -> str:
        """Content of its checkpoint."""
        return self.init.content

    @property
    def shares(self) -> tuple[str, str, str] | None:
        """Features of a probe."""
        return self.features if self.method in PROBES else None

    @property
    def amount(self) -> int:
        """Clips to learn from."""
        return self.subset.clips

    def identity(self) -> dict[str, Any]:
        """What run.json says of its data."""
        data = self.subset.data
        return {"data": data.name, "manifest": str(data.manifest), "content_sha256": data.content,
                "val_manifest": str(data.val_manifest), "val_content_sha256": data.val_content,
                "subset": self.subset.path, "subset_sha256": self.subset.content, "videos": self.subset.clips}

    def record(self, sweep: str) -> dict[str, Any]:
        """What run.json and result.json say of it."""
        overrides = dict(item.split("=", 1) for item in self.overrides)
        more: dict[str, Any] = {"fraction": self.subset.fraction} if self.subset.fraction else {}
        more |= {"pictures": True} if self.subset.data.pictures else {}
        more |= {"pair": self.init.pair} if self.init.pair else {}
        more |= {"grid": dict(self.init.grid)} if self.init.grid else {}
        return {"checkpoint": self.init.name, "checkpoint_content": self.init.content_as(self.config.model),
                "data": self.subset.data.name,
                "shots": self.subset.shots, "seed": self.subset.seed, "method": self.method, "overrides": overrides,
                "sweep": sweep, **more}


@dataclass(frozen=True)
class Settings:
    """What all cells of a sweep have in common.

    Attributes:
        layers: Recipe and cluster profile, weaker than what a checkpoint says of itself.
        overrides: `--set` items.
        variants: Of `--vary`: one tuple of items for every combination.
        methods: One or more.
        select: Of `--select`; None leaves the recipe's rule.
        views: Of `--views`; None leaves the recipe's.
        features: Folder of the cached features.
        clips: Folder for prepared clips; empty: cells read the files.
        prepare_px: Short side of a prepared frame, at most; 0 follows the size of the model's clips.
    """

    layers: Sequence[Layer]
    overrides: tuple[str, ...]
    variants: Sequence[tuple[str, ...]]
    methods: Sequence[str]
    select: str | None
    views: str | None
    features: str
    clips: str = ""
    prepare_px: int = 0


def make_grid(inits: Sequence[Init], subsets: Sequence[Subset], settings: Settings) -> list[Cell]:
    """All cells, those of one checkpoint together; a cell that comes up twice is there once.

    Raises:
        ConfigError: A setting cannot be used; the message names the key and the flag.
    """
    _refuse_filled_in((*settings.overrides, *itertools.chain(*settings.variants)))
    found: dict[str, Cell] = {}
    for cell in _product(inits, subsets, settings):
        found.setdefault(cell.signature, cell)
    return list(found.values())


def _product(inits: Sequence[Init], subsets: Sequence[Subset], settings: Settings) -> Iterator[Cell]:
    sets = list(dict.fromkeys(subset.data for subset in subsets))
    texts = Texts()
    for init, data, method, variant in itertools.product(inits, sets, settings.methods, settings.variants):
        base, origins = _config(init, data, method, variant, settings)
        for subset in subsets:
            if subset.data == data:
                shown = [f"data.prepared={base.data.prepared}"] if base.data.prepared else []
                learned = subset.without_clips if method == CLUSTER else subset
                yield _cell(init, learned, base, (*settings.overrides, *variant, *shown), origins, texts)


def _config(init: Init, data: LabelledSet, method: str, variant: Sequence[str], settings: Settings,
            ) -> tuple[FinetuneConfig, dict[str, str]]:
    """The settings that the cells of all subsets share, and where each comes from; later layers win."""
    flags: dict[str, Any] = {"method": method}
    if settings.select and method not in PROBES:
        flags["select"] = {"rule": settings.select}
    if settings.views and method not in PROBES:
        flags["evaluate"] = {"views": settings.views}
    filled = {
        "data": {"name": data.name, "manifest": str(data.manifest), "val_manifest": str(data.val_manifest)},
        "train": {"init": init.weights, "init_content": init.content, "init_name": init.name},
        "probe": {"features": settings.features},
    }
    layers = [*settings.layers, Layer(f"checkpoint {init.name}", init.settings or {}), *parse_set(settings.overrides),
              *parse_set(variant, "--vary"), Layer("the sweep's flags", flags), Layer("the sweep", filled)]
    config, origins = build(FinetuneConfig, layers)
    if config.evaluate.views.startswith("frames") and config.model.num_frames > 1:  # sees all frames of a clip at once
        layers.append(Layer(SEVERAL_FRAMES, {"evaluate": {"views": "center"}}))
        config, origins = build(FinetuneConfig, layers)
    own_grid = origins["probe.token_grid"].startswith("--")
    if method == "attentive" and config.model.num_frames == 1 and config.probe.token_grid[0] > 1 and not own_grid:
        grid = [1, *config.probe.token_grid[1:]]
        layers.append(Layer(f"checkpoint {init.name}, which has one slot of time", {"probe": {"token_grid": grid}}))
        config, origins = build(FinetuneConfig, layers)
    for manifest in (data.manifest, data.val_manifest) if config.data.decoder != AUTO else ():
        if problem := decoder_problem(manifest, read_summary(manifest), config.data.decoder):
            raise ConfigError(problem)
    own_model = (init.settings or {}).get("model", {})
    if own_model.get("num_frames") == 1 and config.model.num_frames != 1 and config.train.inflated == "no":
        raise ConfigError(f"model.num_frames is {config.model.num_frames} [from {origins['model.num_frames']}], allowed "
                          f"with {init.name}: 1, since it is an image model, which sees one frame; --views frames16 tests "
                          "it on videos, as the mean of the logits of 16 frames, and --set train.inflated=mean (or centre) "
                          "lets a video model start from it")
    if init.weights and not config.train.resize_positions and own_model.get("positions") != "rotary":  # which have no table
        _refuse_other_clips(init.name, own_model, config.model, origins)
    try:
        step_flops(config.model)  # its sizes fit, and there is a convolutional net of them where one is asked for
        if method in PROBES:
            feature_spec(config)
        if settings.clips:
            prepared = preparation_of(config, settings.prepare_px).name
            config = replace(config, data=replace(config.data, prepared=prepared, archives=f"{settings.clips}/{prepared}"))
            origins |= {"data.prepared": "--prepare", "data.archives": "--prepare"}
    except ValueError as error:
        raise ConfigError(f"{init.name}: {error}") from error
    return config, origins


def _refuse_other_clips(name: str, own: Mapping[str, Any], model: ClassifierConfig, origins: Mapping[str, str]) -> None:
    """Refuse clips of another size than the table of positions of a checkpoint has places for."""
    what = {"num_frames": "the frames", "img_size": "the size in px"}
    for key, of_what in what.items():
        value = getattr(model, key)
        if own.get(key) in (None, value) or (key == "num_frames" and own[key] == 1):
            continue
        raise ConfigError(f"model.{key} is {value} [from {origins[f'model.{key}']}], allowed with {name}: {own[key]}, "
                          f"{of_what} of the clips that it was trained on; --set train.resize_positions=true interpolates "
                          "its positions")


def preparation_of(config: FinetuneConfig, prepare_px: int) -> Preparation:
    """How --prepare prepares the clips of a cell.

    Raises:
        PrepareError: A value is out of range.
    """
    return Preparation.for_clips(config.model.img_size, config.data.target_fps / config.data.sampling_rate, prepare_px)


def _cell(init: Init, subset: Subset, base: FinetuneConfig, overrides: tuple[str, ...], origins: Mapping[str, str],
          texts: Texts) -> Cell:
    config = replace(base, name=_plain(f"{init.name}-{_tail(subset, base.method)}"), seed=subset.seed,
                     data=replace(base.data, shots=subset.shots, fraction=subset.fraction, subset=subset.path))
    signed = texts.signed(config, without=("name",))  # what a checkpoint is called may change; what it is does not
    content = hashlib.sha256(f"{subset.content} {subset.data.val_content}".encode()).hexdigest()
    return Cell(init, subset, config, overrides, signature_of_text(KIND, signed, content), origins)


def _tail(subset: Subset, method: str) -> str:
    shots = f"{subset.shots}shot-" if subset.shots else f"{100 * subset.fraction:g}pct-" if subset.fraction else "all-"
    return _plain(f"{subset.data.name}-{'' if method == CLUSTER else shots}seed{subset.seed}-{method}")


def _plain(name: str) -> str:
    """A name that a run folder may have."""
    return re.sub(r"[^\w.-]", "_", name).lstrip(".-") or "_"


def _refuse_filled_in(items: Sequence[str]) -> None:
    for item in items:
        key = item.partition("=")[0].strip()
        if key in FILLED_IN:
            raise ConfigError(f"{key} cannot be set for a sweep: {FILLED_IN[key]} decides it")


def parse_vary(items: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of `--vary key=v1,v2` items, as `key=value` items; commas in brackets do not separate.

    Raises:
        ConfigError: An item has no values, or a key stands twice.
    """
    axes = read_axes(items)
    return list(itertools.product(*([f"{key}={value}" for value in values] for key, values in axes.items())))
