"""The cells of a robustness sweep: model x clips x group of conditions. Reads records and headers, no weights.

A model is a finished few-shot cell, or a finetuned file from elsewhere.

    runs/robust-demo-motion-10shot-seed0-finetune-on-motion-val-imagenet-c-1a2b3c4d
                what is tested                       the clips  the conditions

The name begins with another word than that of the cell, so that patterns of cells do not fit it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar

from jobs.standing.runs import find_run
from sweeps.grid.any_cell import Testing
from sweeps.grid.checkpoints import MODEL, MORE, SCRATCH, is_file
from sweeps.grid.grid import CLUSTER
from vidmae.evaluate.corruptions.conditions import parse_conditions
from vidmae.footage.manifest import AUTO, content_hash, decoder_problem, read_summary
from vidmae.labels.cell_data import class_names
from vidmae.labels.label_map import make_label_map
from vidmae.labels.splits import read_labelled
from vidmae.model.formats.file_model import file_in, model_in
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, read_json, signature
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, Layer, build, load, to_dict
from vidmae.settings.programs.evaluation_config import RobustnessConfig, TestedConfig
from vidmae.weights.finding import find, is_name

KIND = "robustness"
CLEAN = "clean"
FEWSHOT = "fewshot"
Parts = Sequence[tuple[str, tuple[str, ...]]]
"""The cells of one model on one set: what their conditions are called, and the conditions."""
NO_CLASSES = ("tells no classes apart, so it must learn some before it is tested; finetune or probe it, and name its cells: "
              "python sweeps/fewshot.py --checkpoints {name} --method finetune,linear,knn,attentive "
              "--set keep_weights=true")
OWN_CLASSES = ("imagenet-a", "imagenet-r")
"""Sets whose definition leaves the scores of other classes out (Hendrycks et al. 2021, arXiv 1907.07174, 2006.16241)."""


@dataclass(frozen=True)
class Model:
    """A finished few-shot cell, or a finetuned file.

    Attributes:
        run: Its folder; the file itself.
        signature: Of the cell; content hash of the file.
        config: Its settings.
        cell: What its records say it is.
        classes: Names of its classes, by index.
        classes_of: Of a file: the set whose labels are its classes.
        taken: What the file does not say of its clips and was taken as in the released models; or empty.
    """

    run: RunFolder
    signature: str
    config: FinetuneConfig
    cell: Mapping[str, Any]
    classes: tuple[str, ...]
    classes_of: TestSet | None = None
    taken: str = ""

    @property
    def name(self) -> str:
        """Its run's name without the signature; what a file is called."""
        return str(self.cell["checkpoint"]) if self.classes_of else self.run.path.name.removesuffix(f"-{self.signature}")


@dataclass(frozen=True)
class TestSet:
    """Clips or images to test on.

    Attributes:
        name: In tables and in the names of run folders.
        manifest: Of the clips, with labels.
        content: Its content hash.
        clips: How many.
        labels: Names of their labels, by index.
        own_classes: The model chooses among these labels alone.
        cues: Labels are shapes, and file names say textures.
        label_map: CSV with the model's classes for each label.
        by_folder: It is tested as it is, so folders may say what was done to the images.
    """

    name: str
    manifest: Path
    content: str
    clips: int
    labels: tuple[str, ...]
    own_classes: bool = False
    cues: bool = False
    label_map: Path | None = None
    by_folder: bool = False


@dataclass(frozen=True)
class TestCell(Testing):
    """One cell of the sweep; see `AnyCell`."""

    kind: ClassVar[str] = KIND
    headings: ClassVar[tuple[str, str, str, str]] = ("MODEL", "CLIPS", "CONDITIONS", "NUMBER")

    model: Model
    test_set: TestSet
    config: RobustnessConfig
    signature: str
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Its line in tables."""
        return self.model.name, self.test_set.name, self.config.tested.group, str(len(self.config.tested.conditions))

    @property
    def one_process(self) -> bool:
        """Clips are dealt out to all ranks."""
        return False

    @property
    def source(self) -> str:
        """The cell that is tested."""
        return f"cell:{self.model.signature}"

    @property
    def amount(self) -> int:
        """Clips to test on."""
        return self.test_set.clips

    def identity(self) -> dict[str, Any]:
        """What run.json says of its data."""
        return {"data": self.test_set.name, "manifest": str(self.test_set.manifest), "content_sha256": self.test_set.content,
                "videos": self.test_set.clips, "tested": self.model.signature}

    def record(self, sweep: str) -> dict[str, Any]:
        """What run.json and result.json say of it: the cell that is tested, and on what."""
        tested = f"{self.model.name}-{self.model.signature}"
        return {**self.model.cell, "tested": tested, "tested_signature": self.model.signature,
                "set": self.test_set.name, "group": self.config.tested.group, "sweep": sweep}


def find_models(given: Sequence[str], runs_dir: Path, classes_of: TestSet | None = None) -> list[Model]:
    """The finished few-shot cells and the finetuned files that a command names.

    Args:
        given: Ids, starts of ids or folders of cells; cells of this sweep among them are passed over. Patterns such as
            `demo-*` choose among the cells that are done. Files are those of `find_inits`, published names among them.
        runs_dir: Folder of the runs.
        classes_of: Set whose labels are the classes of the files.
    Raises:
        ConfigError: A cell is not done, did not keep what is needed, a pattern fits none, or a file has other classes.
    """
    if SCRATCH in given:
        raise ConfigError(f"{SCRATCH} {NO_CLASSES.format(name=SCRATCH)}")
    files = [_of_name(name, classes_of) if is_name(name) else _of_file(Path(name).expanduser().absolute(), classes_of)
             for name in given if is_name(name) or is_file(name)]
    given = [name for name in given if not (is_name(name) or is_file(name))]
    patterns = [name for name in given if set(name) & set("*?[")]
    named = [find_run(name, runs_dir) for name in given if name not in patterns]
    folders = {run.path: run for run in named if (read_json(run.record) or {}).get("kind") != KIND}
    done = [RunFolder(path.parent) for path in sorted(runs_dir.glob("*/result.json"))] if patterns else []
    cells = [run for run in done if (read_json(run.record) or {}).get("kind") == FEWSHOT]
    for pattern in patterns:
        fit = [run for run in cells if fnmatch(run.path.name, pattern)]
        if not fit:
            raise ConfigError(f"{pattern!r} fits none of the {len(cells)} finished few-shot cells in {runs_dir} "
                              "(python jobs/status.py lists them; --runs-dir names another folder)")
        folders |= {run.path: run for run in fit}
    if not folders and not files:
        raise ConfigError("no model is named: give finished few-shot cells, such as 's-vith14-*-finetune-*', or finetuned "
                          "files, such as ssv2-50shot.pth")
    return [_model(run) for run in folders.values()] + files


def _of_name(name: str, classes_of: TestSet | None) -> Model:
    """Published weights; a sweep takes what is here."""
    try:
        found = find(name, download=False)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return _of_file(found.path.absolute(), classes_of, found.known, found.name)


def _of_file(path: Path, classes_of: TestSet | None, known: Mapping[str, Any] | None = None, name: str = "") -> Model:
    """A finetuned file from elsewhere: sizes from the shapes of its tensors, the names of its classes from a data set."""
    called = name or path.name
    if not path.exists():
        raise ConfigError(f"there is no file {path}")
    try:
        file, found = file_in(path)[0], model_in(path, known)
    except ValueError as error:
        raise ConfigError(f"{called}: {error}") from error
    if found is None:
        raise ConfigError(f"{called} holds no model whose tensors can be listed without running the file's code")
    if not (outputs := found.head):
        raise ConfigError(f"{called} {NO_CLASSES.format(name=path)}")
    if classes_of is None:
        raise ConfigError(f"{called} tells {outputs} classes apart, and does not say their names; say which labelled set "
                          "has them: --data NAME")
    if len(classes_of.labels) != outputs:
        raise ConfigError(f"{called} tells {outputs} classes apart, and {classes_of.name} has {len(classes_of.labels)}; "
                          "class indexes are ranks of the names, so both must have the same classes (--data)")
    content, name = content_hash(file), name or (path.name if path.is_dir() else path.stem)
    given = {"name": name, "model": found.settings,
             "data": {"name": classes_of.name, "val_manifest": str(classes_of.manifest)},
             "train": {"init": str(file), "init_content": content, "init_name": name}}
    cell = {"checkpoint": name, "checkpoint_content": content, "data": classes_of.name, "shots": 0, "seed": 0,
            "method": "finetune", "overrides": {}}
    config = build(FinetuneConfig, [Layer(f"the file {called}", given)])[0]
    return Model(RunFolder(file), content, config, cell, classes_of.labels, classes_of, found.taken)


def _model(run: RunFolder) -> Model:
    record, result = read_json(run.record) or {}, read_json(run.result)
    name = run.path.name
    if record.get("kind") != FEWSHOT:
        raise ConfigError(f"{name} is no few-shot cell but {record.get('kind') or 'no run'}: a model needs classes "
                          "to be tested; finetune or probe it first (python sweeps/fewshot.py --checkpoints)")
    if result is None:
        raise ConfigError(f"{name} is not finished (python jobs/status.py {name})")
    config = load(FinetuneConfig, run.config)
    if config.method == CLUSTER:
        raise ConfigError(f"{name} has clusters of its test clips and knows no classes, so it cannot be tested on others; "
                          "leave it out, or take a cell of another method")
    if config.method == "finetune" and not run.weights.is_file():
        raise ConfigError(f"{name} did not keep its weights; run the cell again with --set keep_weights=true")
    try:
        classes = Predictions.read(run.predictions).classes.tolist()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: its predictions.npz, which says its classes, cannot be read: {error}") from error
    return Model(run, str(record["signature"]), config, record.get("cell") or {}, tuple(classes))


def read_set(name: str, manifest: Path, **more: Any) -> TestSet:
    """Clips to test on, from their manifest.

    Raises:
        ManifestError: It cannot be read, or has no labels.
    """
    labelled = read_labelled(manifest)
    labels = class_names(labelled.classes)
    return TestSet(name, manifest.absolute(), labelled.summary.content_sha256, len(labelled), labels, **more)


def parts_of(given: str, most: int | None) -> Parts:
    """The conditions of each cell and what they are called, `clean` first in each.

    A word that stands for several corruptions, such as imagenet-c, has cells of its own; those that are named one by one are
    put together by their kind. A condition that comes twice counts where it comes first.

    Args:
        given: Of --conditions.
        most: Conditions of a cell beside `clean`, at most; None is all of a group.
    Raises:
        ValueError: A condition is not known.
    """
    groups: dict[str, list[str]] = {}
    seen = {CLEAN}
    for word in filter(None, (word.strip() for word in given.split(","))):
        expanded = parse_conditions(word)
        kinds = {condition.name for condition in expanded}
        for condition in expanded:
            if condition.text not in seen:
                groups.setdefault(word if len(kinds) > 1 else condition.group, []).append(condition.text)
                seen.add(condition.text)
    found: list[tuple[str, tuple[str, ...]]] = []
    for group, texts in groups.items():
        size = most or len(texts)
        chunks = [texts[i:i + size] for i in range(0, len(texts), size)]
        found += [(group if len(chunks) == 1 else f"{group}-{place}of{len(chunks)}", (CLEAN, *chunk))
                  for place, chunk in enumerate(chunks, 1)]
    return found or [(CLEAN, (CLEAN,))]


def make_cells(models: Sequence[Model], sets_of: Mapping[str, Sequence[tuple[TestSet, Parts]]], layers: Sequence[Layer],
               ) -> list[TestCell]:
    """All cells, those of one model together.

    Args:
        models: What is tested.
        sets_of: Signature of each model -> its sets, each with the conditions of its cells.
        layers: Settings that are given for the sweep.
    Raises:
        ConfigError: A setting cannot be used.
        LabelMapError: Labels do not fit a model's classes.
    """
    return [_cell(model, test_set, group, conditions, layers) for model in models
            for test_set, parts in sets_of[model.signature] if _checked(model, test_set) for group, conditions in parts]


def _checked(model: Model, test_set: TestSet) -> bool:
    """True, or an error that says what does not fit."""
    try:
        make_label_map(test_set.labels, model.classes, own=test_set.own_classes, listed=test_set.label_map)
    except ValueError as error:
        raise ConfigError(f"{model.name} on {test_set.name}: {error}") from error
    decoder = model.config.data.decoder
    if decoder != AUTO and (problem := decoder_problem(test_set.manifest, read_summary(test_set.manifest), decoder)):
        raise ConfigError(problem)
    return True


def _cell(model: Model, test_set: TestSet, group: str, conditions: tuple[str, ...], layers: Sequence[Layer]) -> TestCell:
    listed, classes_of = test_set.label_map, model.classes_of
    where = {"weights": str(model.run.path), "classes_of": str(classes_of.manifest), "classes_content": classes_of.content,
             } if classes_of else {"run": str(model.run.path.absolute())}
    tested = TestedConfig(
        **where, signature=model.signature, set_name=test_set.name,
        manifest=str(test_set.manifest), conditions=conditions, group=group,
        label_map=str(listed.absolute()) if listed else "", label_map_content=content_hash(listed) if listed else "",
        own_classes=test_set.own_classes, cues=test_set.cues,
        by_folder=test_set.by_folder or conditions != (CLEAN,))  # with other conditions it has no meaning and stays unsigned
    own = {each.name: getattr(model.config, each.name) for each in fields(FinetuneConfig)}
    there = None if classes_of else read_json(model.run.precision)
    chosen = (there or {}).get("precision", model.config.train.precision)  # what auto was there
    base = RobustnessConfig(**{**own, "train": replace(model.config.train, precision=chosen), "tested": tested})
    config, origins = build(RobustnessConfig, [Layer(f"cell {model.name}", to_dict(base)), *layers])
    if key := next((key for key in (*MODEL, *MORE) if getattr(config.model, key) != getattr(base.model, key)), ""):
        raise ConfigError(f"model.{key} is {getattr(config.model, key)} [from {origins[f'model.{key}']}], allowed with "
                          f"{model.name}: {getattr(base.model, key)}, since its weights are of that model")
    name = re.sub(r"[^\w.-]", "_", f"robust-{model.name}-on-{test_set.name}-{group}")
    signed = to_dict(replace(config, name=KIND), signed_only=True)
    content = hashlib.sha256(test_set.content.encode()).hexdigest()
    return TestCell(model, test_set, replace(config, name=name), signature(KIND, signed, content), origins)
