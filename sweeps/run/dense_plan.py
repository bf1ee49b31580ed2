"""What a dense command means: cells, how far they are, what they cost, and the arrays that are missing.

    runs/dense-s-vith14-on-generated-1a2b3c4d
             what is looked at  the set
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jobs.place.experiment import Place, read_profile
from jobs.place.launch_flags import Parser, add_resources, add_runs_dir
from sweeps.grid.any_cell import Testing
from sweeps.grid.checkpoints import SCRATCH, TAKEN, find_inits
from sweeps.grid.estimate import Estimate
from sweeps.grid.fewshot_flags import add_run_control, comma_list
from sweeps.grid.grid import Init
from sweeps.run.array_submission import Say
from sweeps.run.sweep_plan import Plan, plan_of
from vidmae.evaluate.dense.dense_sets import GENERATED, DenseSet, open_set, parse_set_name
from vidmae.evaluate.dense.dense_table import Line
from vidmae.runs.cost import encoder_flops_per_clip
from vidmae.runs.record import RunFolder, signature
from vidmae.settings.command_line import with_whole_key
from vidmae.settings.layers import ConfigError, Layer, build, parse_set, to_dict
from vidmae.settings.programs.dense_config import DenseConfig, FeatureKind

KIND = "dense"
ENCODER: FeatureKind = "encoder"
OF_A_GRID: tuple[FeatureKind, ...] = ("pixels", "mean", "ceiling")  # controls that depend on the size of cells
FILLED_IN = ("dense.features", "dense.kind", "dense.set_name", "dense.path", "dense.content", "train.init", "name")
MASKS = ("davis", GENERATED)  # layouts that have them


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description)
    what = parser.add_argument_group("what")
    what.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT",
                      help="runs, weights files (.safetensors, .pth) and published names (default: all finished pretraining "
                           "runs); random weights of the same shapes and controls are always added")
    what.add_argument("--sets", type=comma_list, default=[GENERATED], metavar="SET,SET,...",
                      help="davis=FOLDER (masks, layout of DAVIS 2017), tapvid=FILE.pkl|FOLDER (points, layout of TAP-Vid), "
                           "generated (both, of rendered scenes) (default: generated)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of all cells, such as dense.clip=still or model.img_size=448; may be repeated")
    add_resources(parser)
    add_run_control(parser, continues=True)
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--out", type=Path, default=Path("tables"), metavar="FOLDER",
                     help="where dense.md and dense.csv go, with the cells that are done (default: %(default)s)")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the array ids")
    parser.set_defaults(then_collect=False, prepare=None)
    return parser


@dataclass(frozen=True)
class DenseCell(Testing):
    """One cell of the sweep; see `AnyCell`.

    Attributes:
        model: What tables call it.
        weights: Content of its checkpoint; empty for random weights and controls.
        test_set: The set.
        config: All settings.
        signature: Eight hex digits.
        origins: Where each setting comes from.
    """

    kind: ClassVar[str] = KIND
    headings: ClassVar[tuple[str, str, str, str]] = ("MODEL", "SET", "FEATURES", "CELLS OF A FRAME")

    model: str
    weights: str
    test_set: DenseSet
    config: DenseConfig
    signature: str
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Its line in tables."""
        side = self.config.model.shape().grid[1]
        features = self.config.dense.features
        return self.model, self.test_set.name, features, f"{side}x{side}" if features in (ENCODER, *OF_A_GRID) else ""

    @property
    def one_process(self) -> bool:
        """Its forward passes fit on one GPU."""
        return True

    @property
    def source(self) -> str:
        """Content of its checkpoint."""
        return self.weights

    @property
    def amount(self) -> int:
        """Frames."""
        return self.test_set.frames

    def identity(self) -> dict[str, Any]:
        """What run.json says of its data."""
        return {"data": self.test_set.name, "content_sha256": self.test_set.content, "videos": None}

    def record(self, sweep: str) -> dict[str, Any]:
        """What run.json and result.json say of it."""
        return {"checkpoint": self.model, "checkpoint_content": self.weights, "data": self.test_set.name,
                "features": self.config.dense.features, "seed": self.config.seed, "sweep": sweep}


def resolve(args: argparse.Namespace, command: Sequence[str], place: Place, say: Say) -> Plan:
    """Everything that the command means.

    Args:
        args: Of sweeps/dense.py.
        command: What the user typed, for the record.
        place: Where it runs.
        say: Tells people.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    where = read_profile(args, place)
    site, runs_dir = where[0], args.runs_dir.expanduser().absolute()
    names = [*args.checkpoints, *([] if SCRATCH in args.checkpoints or not args.checkpoints else [SCRATCH])]
    inits = find_inits(names, (), runs_dir)
    for init in inits:
        if init.taken:
            say(TAKEN.format(name=init.name, taken=init.taken))
    layers = [*site.config, *parse_set(args.set)]
    sets = find_dense_sets(args.sets, layers)
    cells = make_cells(inits, sets, site.config, args.set)
    return plan_of(KIND, cells, [estimate(cell) for cell in cells], args, command, place, where, say)


def find_dense_sets(words: Sequence[str], layers: Sequence[Layer]) -> list[DenseSet]:
    """The sets of --sets.

    Raises:
        ConfigError: One cannot be used, or two have one name.
    """
    how = build(DenseConfig, layers)[0].dense
    try:
        asked = [parse_set_name(word) for word in words]
        counts = Counter(kind for kind, _ in asked)
        names = [kind if counts[kind] == 1 or path is None else f"{kind}-{path.stem}" for kind, path in asked]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ConfigError(f"two sets are called {twice[0]!r}, and tables could not tell them apart (--sets)")
        return [open_set(name, kind, path, how) for name, (kind, path) in zip(names, asked, strict=True)]
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error


def make_cells(inits: Sequence[Init], sets: Sequence[DenseSet], profile: Sequence[Layer], given: Sequence[str],
               ) -> list[DenseCell]:
    """All cells, those of one set together: models, random weights, controls; each once.

    Args:
        inits: Checkpoints, and random weights.
        sets: What they are tested on.
        profile: Settings of the site, weaker than what a checkpoint says of itself.
        given: `--set` items.
    Raises:
        ConfigError: A setting cannot be used.
    """
    for item in given:
        key = item.partition("=")[0].strip()
        if key.startswith(FILLED_IN):
            raise ConfigError(f"{key} cannot be set for a sweep: the checkpoints and --sets decide it")
    found: dict[str, DenseCell] = {}
    for test_set in sets:
        encoders = [_cell(init.name, init, ENCODER, test_set, profile, given) for init in inits]
        for cell in encoders:
            if cell.config.model.net == "conv":
                raise ConfigError(f"{cell.model} is a convolutional net (model.net conv), which has no features of patches; "
                                  "allowed: transformers (leave it out)")
        controls = [_control("static", encoders[0], test_set, profile, given)]
        if test_set.kind == GENERATED:
            controls.append(_control("oracle", encoders[0], test_set, profile, given))
        for encoder in encoders:
            controls += [_control(kind, encoder, test_set, profile, given) for kind in OF_A_GRID
                         if kind != "ceiling" or test_set.kind in MASKS]
        for cell in [*encoders, *controls]:
            found.setdefault(cell.signature, cell)
    return list(found.values())


def _control(features: FeatureKind, like: DenseCell, test_set: DenseSet, profile: Sequence[Layer], given: Sequence[str],
             ) -> DenseCell:
    """A control of the same cells as a model; its own model is a small one that is never built, the same for all models."""
    model, patch = like.config.model, like.config.model.shape().patch_size
    small = {"name": f"vit_pico_patch{patch}", "img_size": model.img_size, "num_frames": 1, "t_patch_size": 1,
             "positions": "learned", "pool": "cls"}
    if features not in OF_A_GRID:
        small |= {"name": "vit_pico_patch16", "img_size": 224}
    side = model.img_size // patch
    name = f"{features} {side}x{side}" if features in OF_A_GRID else features
    return _cell(name, Init(name), features, test_set, profile, given, small)


def _cell(name: str, init: Init, features: FeatureKind, test_set: DenseSet, profile: Sequence[Layer], given: Sequence[str],
          model: Mapping[str, Any] | None = None) -> DenseCell:
    filled = {"train": {"init": init.weights, "init_content": init.content, "init_name": init.name},
              "dense": {"features": features, "kind": test_set.kind, "set_name": test_set.name,
                        "path": str(test_set.path or ""), "content": test_set.content}}
    layers = [*profile, Layer(f"checkpoint {init.name}", init.settings or {}), *parse_set(given),
              Layer("the sweep", {**filled, **({"model": model} if model else {})})]
    config, origins = build(DenseConfig, layers)
    own = (init.settings or {}).get("model", {})
    for key in ("num_frames", "img_size"):
        if init.weights and not config.train.resize_positions and own.get(key) not in (None, getattr(config.model, key)):
            raise ConfigError(f"model.{key} is {getattr(config.model, key)} [from {origins[f'model.{key}']}], allowed with "
                              f"{init.name}: {own[key]}; --set train.resize_positions=true interpolates its positions")
    config = replace(config, name=re.sub(r"[^\w.-]", "_", f"dense-{name}-on-{test_set.name}"))
    signed = to_dict(config, signed_only=True)
    del signed["name"]  # what a checkpoint is called may change; what it is does not
    content = hashlib.sha256(test_set.content.encode()).hexdigest()
    return DenseCell(name, init.content, test_set, config, signature(KIND, signed, content), origins)


def estimate(cell: DenseCell) -> Estimate:
    """What a cell computes: a clip for each frame; controls cost no product worth counting."""
    how = cell.config.dense
    if how.features != ENCODER:
        return Estimate(0, 0.0)
    tuning = 0 if how.kind == "davis" else how.tuning_scenes * how.scene_frames
    return Estimate(0, (cell.test_set.frames + tuning) * encoder_flops_per_clip(cell.config.model.shape()))


def finished(plan: Plan) -> list[Line]:
    """The cells that are done now, for the table; each model with the random weights of its shape."""
    there = [(s.cell, RunFolder(s.run.path)) for s in plan.standings if s.run.result.exists()]
    random = {_shape(cell): run for cell, run in there if isinstance(cell, DenseCell) and _is_random(cell)}
    return [Line(cell.model, cell.test_set.name, run,
                 random.get(_shape(cell)) if cell.config.dense.features == ENCODER and not _is_random(cell) else None)
            for cell, run in there if isinstance(cell, DenseCell)]


def _is_random(cell: DenseCell) -> bool:
    return cell.config.dense.features == ENCODER and not cell.weights


def _shape(cell: DenseCell) -> tuple[Any, ...]:
    return cell.test_set.name, cell.config.model.shape(), cell.config.dense.clip
