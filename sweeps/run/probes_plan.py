"""Temporal probes as a grid: checkpoint x recordings x seed. The command line, the cells, and what is missing of them.

    runs/time-s-vith14-on-s-val-seed0-1a2b3c4d
         what is asked    the recordings

A cell asks all probes, so that each clip is decoded once. Reads records, headers and manifests, no weights and no videos.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from jobs.place.catalogue import Catalogue, DataSource, environment_catalogue, find_data
from jobs.place.experiment import Place, read_profile
from jobs.place.launch_flags import Parser, add_resources, add_runs_dir
from sweeps.grid.any_cell import Testing
from sweeps.grid.checkpoints import TAKEN, find_inits
from sweeps.grid.estimate import Estimate
from sweeps.grid.fewshot_flags import add_run_control, comma_list
from sweeps.grid.grid import Init
from sweeps.run.array_submission import Say
from sweeps.run.sweep_plan import FEATURES, Plan, plan_of
from vidmae.evaluate.temporal.drawn_windows import Windows, draw_windows
from vidmae.evaluate.temporal.time_tasks import different, make_task
from vidmae.footage.manifest import AUTO, Row, decoder_problem, read_all, read_summary
from vidmae.runs.cost import view_flops
from vidmae.runs.record import signature
from vidmae.settings.command_line import with_whole_key
from vidmae.settings.layers import ConfigError, Layer, build, parse_set, to_dict
from vidmae.settings.programs.temporal_config import TIME_PROBES, TemporalConfig

KIND = "temporal"
ARITHMETIC = Layer("temporal probes, which compare clips of the same frames", {"train": {"precision": "fp32"}})
"""Pooled features of a clip and of the same frames in another order may differ by less than 16-bit arithmetic rounds off."""
FILLED_IN = {  # what the sweep itself sets: key -> what to use instead of --set
    "name": "the names follow from the cells", "seed": "--seeds", "data.name": "--videos", "data.manifest": "--videos",
    "temporal.manifest": "--videos", "temporal.set_name": "--videos", "temporal.drawn": "--videos",
    "temporal.probes": "--probes", "train.init": "CHECKPOINT", "train.init_content": "CHECKPOINT",
    "train.init_name": "CHECKPOINT", "probe.features": "it is features/ beside the runs"}


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description)
    what = parser.add_argument_group("what")
    what.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT",
                      help="runs, weights files (.safetensors, .pth), scratch (default: all finished pretraining runs, and "
                           "scratch)")
    what.add_argument("--videos", required=True, type=comma_list, metavar="VIDEOS",
                      help="recordings, of which no labels are needed: names or manifests (.csv), between commas")
    what.add_argument("--probes", type=_probes, default=list(TIME_PROBES), metavar="P,P,...",
                      help=f"{', '.join(TIME_PROBES)} (default: all)")
    what.add_argument("--seeds", type=_seeds, default=[0], metavar="N,N,...",
                      help="of the windows and of the split of the recordings, one draw each (default: 0)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of all cells, such as temporal.windows=500 or model.pool=mean; may be repeated")
    add_resources(parser)
    add_run_control(parser, after=True)
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the array ids")
    parser.set_defaults(then_collect=False)
    return parser


def _probes(text: str) -> list[str]:
    words = comma_list(text)
    if unknown := [word for word in words if word not in TIME_PROBES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no probe; allowed: {', '.join(TIME_PROBES)}")
    return [probe for probe in TIME_PROBES if probe in words]  # in whatever order they are asked for


def _seeds(text: str) -> list[int]:
    words = comma_list(text)
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or several, such as 0,1")
    return list(dict.fromkeys(map(int, words)))


@dataclass(frozen=True)
class TimeCell(Testing):
    """One cell; see `AnyCell`."""

    kind: ClassVar[str] = KIND
    headings: ClassVar[tuple[str, str, str, str]] = ("CHECKPOINT", "VIDEOS", "PROBES", "WINDOWS")

    init: Init
    data: DataSource
    windows: Windows
    config: TemporalConfig
    cost: Estimate
    signature: str
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def tail(self) -> str:
        """The end of that name that does not depend on what the checkpoint is called."""
        return f"-seed{self.config.seed}-{self.signature}"

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Its line in tables."""
        return self.init.name, self.data.name, str(len(self.config.temporal.probes)), str(len(self.windows))

    @property
    def one_process(self) -> bool:
        """Clips are few, and probes are fitted by one process."""
        return True

    @property
    def after(self) -> str:
        """Slurm job that still has to write its weights, or empty."""
        return self.init.after

    @property
    def source(self) -> str:
        """Content of its checkpoint."""
        return self.init.content

    @property
    def amount(self) -> int:
        """Windows."""
        return len(self.windows)

    def identity(self) -> dict[str, Any]:
        """What run.json says of its data."""
        summary = read_summary(self.data.manifest)
        return {"data": self.data.name, "manifest": str(self.data.manifest), "content_sha256": summary.content_sha256,
                "videos": summary.videos}

    def record(self, sweep: str) -> dict[str, Any]:
        """What run.json and result.json say of it."""
        m = self.config.model
        return {"checkpoint": self.init.name, "checkpoint_content": self.init.content_as(m), "set": self.data.name,
                "seed": self.config.seed, "probes": list(self.config.temporal.probes), "pool": m.pool, "sweep": sweep}


def resolve(args: argparse.Namespace, command: Sequence[str], place: Place, say: Say) -> Plan:
    """Everything that the command means.

    Args:
        args: Of sweeps/probes.py.
        command: What the user typed, for the record.
        place: Where it runs.
        say: Tells people.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    where = read_profile(args, place)
    site, runs_dir = where[0], args.runs_dir.expanduser().absolute()
    for item in args.set:
        if (key := item.partition("=")[0].strip()) in FILLED_IN:
            raise ConfigError(f"{key} cannot be set for a sweep: {FILLED_IN[key]} decides it")
    inits = find_inits(args.checkpoints, args.after, runs_dir)
    for init in inits:
        if init.taken:
            say(TAKEN.format(name=init.name, taken=init.taken))
    flags = (*parse_set(args.set), Layer("--probes", {"temporal": {"probes": args.probes}}),
             Layer("the sweep", {"probe": {"features": str(runs_dir / FEATURES)}}))
    cells = make_cells(inits, _sets(args.videos, site.catalogue | environment_catalogue()), args.seeds, site.config, flags)
    for line in dict.fromkeys(_left_out(cell) for cell in cells if cell.windows.left_out):
        say(line)
    plan = plan_of(KIND, cells, [cell.cost for cell in cells], args, command, place, where, say)
    train = cells[0].config.train
    if plan.classes.trained.gpus_per_node and train.device != "cpu" and train.precision == "fp32":
        say("note: in fp32, so that rounding hides no order; on GPUs that takes up to 15 times as long as the cost below "
            "(--set train.precision=bf16)")
    return plan


def _sets(given: Sequence[str], known: Catalogue) -> list[DataSource]:
    found = [find_data(name, name, known) for name in given]
    names = [data.name for data in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two sets of recordings are called {twice[0]!r} (--videos), and tables could not tell them apart")
    return found


def make_cells(inits: Sequence[Init], sets: Sequence[DataSource], seeds: Sequence[int], site: Sequence[Layer],
               flags: Sequence[Layer]) -> list[TimeCell]:
    """All cells, those of one checkpoint together; one that comes up twice is there once.

    Args:
        inits: What is asked.
        sets: Recordings.
        seeds: Of windows and split.
        site: Settings of the cluster profile, weaker than what a checkpoint says of itself.
        flags: Settings that are given for the sweep.
    Raises:
        ConfigError: A setting cannot be used, or there are too few recordings.
    """
    rows = {data.name: read_all(data.manifest)[1] for data in sets}
    found: dict[str, TimeCell] = {}
    for init in inits:
        for data in sets:
            for seed in seeds:
                layers = [ARITHMETIC, *site, Layer(f"checkpoint {init.name}", init.settings or {}), *flags]
                cell = _cell(init, data, rows[data.name], seed, layers)
                found.setdefault(cell.signature, cell)
    return list(found.values())


def _cell(init: Init, data: DataSource, rows: Sequence[Row], seed: int, layers: Sequence[Layer]) -> TimeCell:
    filled = {
        "name": re.sub(r"[^\w.-]", "_", f"time-{init.name}-on-{data.name}-seed{seed}"), "seed": seed,
        "data": {"name": data.name, "manifest": str(data.manifest)},
        "train": {"init": init.weights, "init_content": init.content, "init_name": init.name},
        "temporal": {"manifest": str(data.manifest), "set_name": data.name}}
    config, origins = build(TemporalConfig, [*layers, Layer("the sweep", filled)])
    decoder, d, t = config.data.decoder, config.data, config.temporal
    if decoder != AUTO and (problem := decoder_problem(data.manifest, read_summary(data.manifest), decoder)):
        raise ConfigError(problem)
    try:
        of_clip = view_flops(config.model)
        windows = draw_windows(rows, t, num_frames=config.clip_frames, sampling_rate=d.sampling_rate,
                               target_fps=d.target_fps, seed=seed)
        tasks = [make_task(name, windows, config.clip_frames, t.gap_s, seed) for name in t.probes]
    except ValueError as error:
        raise ConfigError(f"{init.name} on {data.name}: {error}") from error
    drawn = windows.digest([row.content for row in rows])
    config = replace(config, temporal=replace(t, drawn=drawn))
    clips, stills = different(tasks)
    of_image, untrained = config.model.num_frames == 1, 1 if init.weights else 0
    passes = stills * (1 + untrained) if of_image else stills + clips * (1 + untrained)
    signed = to_dict(config, signed_only=True)
    del signed["name"]  # what a checkpoint is called may change; what it is does not
    return TimeCell(init, data, windows, config, Estimate(0, passes * of_clip),
                    signature(KIND, signed, drawn), origins)


def _left_out(cell: TimeCell) -> str:
    said = ", ".join(f"{count} ({why})" for why, count in cell.windows.left_out.items())
    return f"{cell.data.name}: videos without a window: {said}"
