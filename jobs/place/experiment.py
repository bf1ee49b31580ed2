"""What a pretraining command means: where it runs, the resolved configuration, its data, its resources, its problems.

Nothing is written here. `resolve` raises on the first thing that makes the rest meaningless; `problems` lists all the
others at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.place.avoided import Avoided, avoided
from jobs.place.catalogue import DataSource, environment_catalogue, find_data
from jobs.place.found_data import FoundData, data_problems, find_sources_of, stock_or_problem, turns_of
from jobs.place.launch_flags import resource_flags
from jobs.place.profiles import ClusterProfile, Site, environment_layer, find_site, flag_layers
from jobs.place.resources import SAVE_MARGIN_S, Resources, choose_partition, complete, local_resources
from jobs.place.scheduler import slurm
from vidmae.footage.archives.archive_layout import file_of
from vidmae.footage.manifest import HOW_TO_MAKE, ManifestError, Summary, first_paths, read_summary
from vidmae.mixtures.mixture import Stock
from vidmae.model.formats.file_model import init_problem
from vidmae.ranks.precision import assumed
from vidmae.runs import cost
from vidmae.runs.attempts import read_attempts, totals
from vidmae.runs.gpus import find_gpu
from vidmae.runs.plan import Plan, make_plan
from vidmae.runs.record import RunFolder, signature
from vidmae.settings.config import PretrainConfig, TrainConfig
from vidmae.settings.keeping_config import LogConfig
from vidmae.settings.layers import ConfigError, Layer, build, parse_set, replacements, to_dict
from vidmae.settings.recipe import read_recipe
from vidmae.weights.finding import find, is_name

KIND = "pretrain"
NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
Setting = tuple[Site, ClusterProfile, dict[str, str], slurm.Partition | None]  # what `read_profile` finds
FEW_STEPS = 100  # fewer than this teach no model anything
FEW_BY_EPOCHS = 2000  # where a recipe counts epochs, fewer say that it is one for many more videos
LOOKED_AT = 100  # videos whose files are looked for
SLURM_ONLY = ("partition", "account", "qos", "constraint", "exclude", "nodelist", "dependency")


@dataclass(frozen=True)
class Place:
    """Where jobs run: `slurm` or `local`, why, and why Slurm cannot be asked (only a dry run goes on then)."""

    cluster: str
    why: str
    unasked: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A command, resolved.

    Attributes:
        place: Where it runs.
        config: The experiment.
        origins: Of every value of it.
        profile: Profile and flags.
        profile_origins: Of every value of it.
        site: The profile's other sections.
        partition: What Slurm says of it; None on this machine.
        resources: What the job gets.
        said: A line for each number that nobody gave, and for each setting that gave way to another.
        data: The manifest; of a mixture what all of it is called, without a manifest.
        summary: Its totals; of a mixture those of all its manifests.
        run: The run folder (which may not exist).
        plan: Derived numbers; None where the configuration and the resources do not fit together.
        found: The manifests with their totals; one, or those of the sources of a mixture.
        stocks: What each of them has to show; empty where that cannot be known.
        pair: Of an image model that is matched to a video model: what run.json says of the two.
        grid: Of a run of a grid: what run.json says of its place in it, `settings` and `repeat`.
    """

    place: Place
    config: PretrainConfig
    origins: dict[str, str]
    profile: ClusterProfile
    profile_origins: dict[str, str]
    site: Site
    partition: slurm.Partition | None
    resources: Resources
    said: list[str]
    data: DataSource
    summary: Summary
    run: RunFolder
    plan: Plan | None
    found: Sequence[FoundData] = ()
    stocks: Sequence[Stock] = ()
    pair: Mapping[str, Any] | None = None
    grid: Mapping[str, Any] | None = None

    @property
    def on_cpu(self) -> bool:
        """True where the ranks compute on the CPU."""
        return self.config.train.device == "cpu" or self.resources.gpus_per_node == 0

    @property
    def avoided(self) -> Avoided:
        """The nodes that its job avoids."""
        return avoided([self.run], self.profile, self.profile_origins, self.partition, self.resources)

    @property
    def signature(self) -> str:
        """Eight hex digits of what is trained on what."""
        return self.run.path.name[-8:]


def choose_place(args: argparse.Namespace) -> Place:
    """`--cluster`, else Slurm where its controller answers, else this machine.

    Raises:
        SlurmError: Slurm is asked for, by name or by a flag that only Slurm knows, and is not there; or it is installed
            and does not answer.
    """
    if args.cluster == "local":
        return Place("local", "--cluster local")
    problem = slurm.absent()
    if problem is None:
        return Place("slurm", "--cluster slurm" if args.cluster else "sbatch is installed and the controller answers")
    if args.cluster == "slurm" and args.dry_run:
        return Place("slurm", "--cluster slurm", str(problem))
    asked = ["--cluster slurm"] if args.cluster else [f"--{f}" for f in SLURM_ONLY if getattr(args, f) is not None]
    asked += ["--sbatch"] if args.sbatch else []
    asked += ["--nodes"] if args.nodes is not None and args.nodes > 1 else []
    if asked:
        raise slurm.SlurmError(f"{asked[0]} needs Slurm, which cannot be used from here: {problem}")
    if isinstance(problem, slurm.SlurmAwayError):  # a login node is no place to train because the controller restarts
        raise slurm.SlurmError(f"Slurm is installed and away: {problem}; --cluster local runs on this machine")
    return Place("local", f"no Slurm here: {problem}")


def read_profile(args: argparse.Namespace, place: Place) -> Setting:
    """The site, its profile with the resource flags over it, the origin of each value, and what Slurm says of the partition.

    Raises:
        ConfigError: The profile or a flag cannot be used, or there is no such partition.
        SlurmError: Slurm does not answer.
    """
    asks = place.cluster == "slurm" and not place.unasked
    site = find_site(args.profile, slurm.cluster_name() if asks else None)
    layers = [*([environment_layer()] if place.cluster == "slurm" else []), *site.layers,
              *flag_layers(resource_flags(args), args.sbatch)]
    profile, origins = build(ClusterProfile, layers)
    return site, profile, origins, choose_partition(profile.partition, slurm.partitions()) if asks else None


def resolve(args: argparse.Namespace, place: Place) -> Experiment:
    """Read recipe, profile, flags and data, ask Slurm what the partition has, and work out the rest.

    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    setting = read_profile(args, place)
    layers = [*config_layers(args, setting[0]), *([Layer("--name", {"name": args.name})] if args.name is not None else [])]
    if args.checks is not None:
        layers.append(Layer("--checks", {"recovery": {"checks": args.checks}}))
    if args.stage is not None:
        layers.append(Layer("--stage", {"data": {"stage": args.stage}}))
    if args.profile_steps is not None:
        layers.append(Layer("--profile-steps", {"log": {"profile_steps": args.profile_steps}}))
    config, runs_dir = build(PretrainConfig, layers)[0], args.runs_dir.expanduser().absolute()
    if not config.data.sources:
        return assemble(place, setting, layers, *read_data(args.data, config, setting[0]), runs_dir)
    found = find_sources_of(config, args.data, setting[0].catalogue)
    whole = FoundData.joined(found)
    return assemble(place, setting, layers, whole.source, whole.summary, runs_dir, found)


def config_layers(args: argparse.Namespace, site: Site) -> list[Layer]:
    """Recipe, cluster profile and --set, the weakest first."""
    return [read_recipe(args.recipe, PretrainConfig), *site.config, *parse_set(args.set)]


def read_data(given: str | None, config: PretrainConfig, site: Site) -> tuple[DataSource, Summary]:
    """The manifest that --data, else the configuration names, and its totals.

    Raises:
        ConfigError: There is none, or it is damaged.
    """
    if config.data.manifest and given is None:
        given = config.data.manifest  # --set data.manifest=...
    data = find_data(given, config.data.name, site.catalogue | environment_catalogue())
    try:
        return data, read_summary(data.manifest)
    except ManifestError as error:
        raise ConfigError(str(error)) from error


def assemble(place: Place, setting: Setting, layers: Sequence[Layer], data: DataSource, summary: Summary, runs_dir: Path,
             mixed: Sequence[FoundData] = (), *, tagged: bool = True) -> Experiment:
    """An experiment from its parts; nothing is read but what the layers hold, and rows where a part of them is asked for.

    Args:
        place: Where it runs.
        setting: From `read_profile`.
        layers: Of the configuration, the weakest first.
        data: What it is trained on.
        summary: Its totals.
        runs_dir: Folder of the runs.
        mixed: The sources of a mixture, of which `data` and `summary` are all together.
        tagged: The name shall say what is not as usual; False leaves it as the layers have it.
    Raises:
        ConfigError: A setting cannot be used.
    """
    site, profile, profile_origins, partition = setting
    config, origins = _with_paths(layers, data, mixed, tagged=tagged)
    found = list(mixed) or [FoundData(data, summary)]
    stocks, _ = stock_or_problem(config, found)
    if place.cluster == "slurm":
        resources, said = complete(profile, profile_origins, partition)
    else:
        resources, said = local_resources(profile, profile_origins, on_cpu=config.train.device == "cpu")
    said = [*said, *replacements(origins)]
    signed = to_dict(config, signed_only=True)
    name = f"{config.name}-{signature(KIND, signed, summary.content_sha256)}"
    try:
        plan = _plan(config, summary, stocks, resources)
    except ValueError:
        plan = None  # `problems` says why
    return Experiment(place, config, origins, profile, profile_origins, site, partition, resources, said, data, summary,
                      RunFolder(runs_dir / name), plan, found, stocks)


def _plan(config: PretrainConfig, summary: Summary, stocks: Sequence[Stock], resources: Resources) -> Plan:
    turns = turns_of(config, stocks)
    return make_plan(config, videos=summary.videos, world_size=resources.world_size, visits=sum(turns) or None,
                     once=config.data.order == "single-pass")


def _with_paths(layers: Sequence[Layer], data: DataSource, mixed: Sequence[FoundData], *, tagged: bool,
                ) -> tuple[PretrainConfig, dict[str, str]]:
    """The configuration with its manifests, with absolute paths, since the job runs in another folder, and with a name that
    says where order, ages, clips or the objective are not as usual: tables and plots call a run by its name."""
    config, origins = build(PretrainConfig, layers)
    found = {"manifest": "" if mixed else str(data.manifest),
             **({"name": data.name} if data.name != config.data.name else {})}
    tags = missing_tags(config) if tagged else []
    extra = [Layer(data.origin, {"data": found})]
    extra += [Layer(one.source.origin, {"data": {"sources": {str(i): {"manifest": str(one.source.manifest)}}}})
              for i, one in enumerate(mixed)]
    if config.train.init:
        try:
            path = str(find(config.train.init, download=False).path if is_name(config.train.init) else
                       Path(config.train.init).expanduser().absolute())
        except ValueError as error:
            raise ConfigError(f"train.init: {error} [from {origins['train.init']}]") from error
        extra.append(Layer(origins["train.init"], {"train": {"init": path}}))
    if tags:
        said = ("data.order, data.age_months, data.without_child, data.clip, model.mask, model.temporal_positions, "
                f"model.target and model.decoder_mask_ratio, over {origins.get('name', 'default')}")
        extra.append(Layer(said, {"name": "-".join([config.name, *tags])}))
    return build(PretrainConfig, [*layers, *extra])


def missing_tags(config: PretrainConfig) -> list[str]:
    """What a run's name must say of settings that are not as usual, and does not."""
    return [tag for tag in (config.data.tag, *config.model.tags) if tag and f"-{tag}-" not in f"-{config.name}-"]


def problems(e: Experiment) -> list[str]:
    """Everything that would make the job fail, one message each; empty where it can run."""
    found = partition_problems(e.partition, e.resources) if e.partition else []
    found += folder_problems(e.run.path)
    try:
        e.config.model.shape()
    except ValueError as error:
        found.append(str(error))
    unready = data_problems(e.config, e.origins, e.found, e.stocks)
    try:
        _ = unready or _plan(e.config, e.summary, e.stocks, e.resources)
    except ValueError as error:
        found.append(f"{e.data.manifest}: {error}" if e.summary.videos < 1 else str(error))
    found += unready
    train = e.config.train
    if train.init and not os.access(train.init, os.R_OK):
        found.append(f"train.init is {train.init}, allowed: a weights file that exists and is readable "
                     f"[from {e.origins['train.init']}]")
    elif train.init and not found and (problem := init_problem(Path(train.init), e.config.model.shape(),
                                                               resize=train.resize_positions)):
        found.append(f"train.init is {train.init}, and the model cannot start from it: {problem} [from "
                     f"{e.origins['train.init']}]")
    found += device_problems(train, gpus=e.resources.gpus_per_node)
    return found + tracker_problems(e.config.log)


def tracker_problems(log: LogConfig) -> list[str]:
    """Whether the tracker of experiments is installed; nodes have the environment of the launcher."""
    if log.tracker == "none" or importlib.util.find_spec(log.tracker):
        return []
    return [f"log.tracker is {log.tracker}, which is not installed here: pip install {log.tracker} (--set log.tracker=none)"]


def device_problems(train: TrainConfig, *, gpus: int, who: str = "the job has", trains: bool = True) -> list[str]:
    """What a run cannot do on the device that it gets, one message each.

    Args:
        train: The recipe's section.
        gpus: Of each node.
        who: Begins what is said where there are none.
        trains: False: it tests, and what is only for training does not matter.
    """
    found = []
    if train.device == "cuda" and not gpus:
        found.append(f"train.device is cuda, but {who} no GPU (--gpus-per-node, or --set train.device=auto)")
    if train.device != "cpu" and gpus:
        return found
    if train.precision == "fp16":
        found.append("train.precision is fp16, which needs a GPU; on the CPU: bf16 or fp32 (--set train.precision=bf16)")
    if trains and train.micro_batch == "auto":
        found.append("train.micro_batch is auto, which measures the memory of a GPU; on the CPU: a number of clips "
                     "(--set train.micro_batch=16)")
    if trains and train.compile == "graphs":
        found.append("train.compile is graphs, which a CPU does not have; on the CPU: auto, true or false "
                     "(--set train.compile=auto)")
    return found


def partition_problems(partition: slurm.Partition, r: Resources) -> list[str]:
    """What the partition does not have or allow, one message each."""
    most = min(partition.nodes, partition.max_nodes or partition.nodes)
    most_gpus = max((s.gpus for s in partition.shapes), default=0)
    found = []
    if r.nodes > most:
        found.append(f"nodes is {r.nodes}, allowed: 1 to {most} in partition {partition.name} (--nodes)")
    if r.gpus_per_node > most_gpus:
        found.append(f"gpus_per_node is {r.gpus_per_node}, allowed: 0 to {most_gpus} in partition {partition.name} "
                     "(--gpus-per-node)")
    elif r.gpus_per_node and r.nodes <= most and r.nodes > partition.nodes_with(r.gpus_per_node):
        found.append(f"nodes is {r.nodes}, but only {partition.nodes_with(r.gpus_per_node)} nodes of partition "
                     f"{partition.name} have {r.gpus_per_node} GPUs (--nodes, --gpus-per-node)")
    fit = [s for s in partition.shapes if s.gpus >= r.gpus_per_node]
    cpus, mem = max((s.cpus for s in fit), default=0), max((s.mem_mib for s in fit), default=0)
    if fit and r.tasks_per_node * r.cpus_per_task > cpus:
        found.append(f"cpus_per_task is {r.cpus_per_task}, allowed: 1 to {cpus // r.tasks_per_node} ({cpus} CPUs per node "
                     f"for {r.tasks_per_node} tasks; --cpus-per-task, --tasks-per-node)")
    if fit and r.mem_mib > mem:
        found.append(f"mem_gib is {r.mem_mib / 1024:g}, allowed: 0 (all) to {mem / 1024:.1f} in partition {partition.name} "
                     "(--mem)")
    if partition.max_time_min and r.time_min and r.time_min > partition.max_time_min:
        found.append(f"time is {slurm.format_time(r.time_min)}, allowed: up to "
                     f"{slurm.format_time(partition.max_time_min)} in partition {partition.name} (--time)")
    return found


def folder_problems(path: Path) -> list[str]:
    """Why a run folder cannot be made there, or not be used by a job."""
    if re.search(r"[%:\x00-\x1f\x7f\\]", str(path)):
        what = "a %, colon, backslash or control character, which Slurm or PYTHONPATH would read as something else"
        return [f"the run folder {str(path)!r} holds {what} (--runs-dir)"]
    there = next(p for p in (path, *path.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [f"the run folder {path} cannot be written: {there} is not a folder that you may write to (--runs-dir)"]
    return []


def data_warnings(e: Experiment) -> list[str]:
    """What may be wrong with the videos, from their totals."""
    found, data = [], e.config.data
    for manifest in (one.source.manifest for one in e.found if not one.summary.verified):
        found.append(f"{manifest} was made with --no-verify: one frame of each file was read; what cannot be read, "
                     "or is read wrongly, is found in training or not at all")
    clip_s = e.config.in_window * data.sampling_rate / data.target_fps
    if (share := e.summary.share_shorter(clip_s)) and not all(one.summary.pictures for one in e.found):
        found.append(f"about {share:.0%} of the videos are shorter than a clip of {clip_s:.2f} s: their last frame is "
                     "repeated until the clip is full (data.sampling_rate, model.num_frames)")
    for manifest in (one.source.manifest for one in e.found):
        first = first_paths(manifest, LOOKED_AT) if manifest.exists() else []  # a fraction is listed later
        if gone := sum(not file_of(path).exists() for path in first):
            found.append(f"{gone} of the first {len(first)} videos of {manifest} are not there, seen from this machine; "
                         f"make the manifest again where they moved: {HOW_TO_MAKE}")
    phases = e.config.train.phases
    few = FEW_BY_EPOCHS if all(phase.duration.unit == "epochs" for phase in phases) else FEW_STEPS
    if e.plan and e.plan.schedule.total_steps < few:
        length = " + ".join(str(phase.duration) for phase in phases)
        epochs = f"; {length} are for many more videos" if few == FEW_BY_EPOCHS else ""
        size = f"{e.summary.videos} videos x {data.repeat_aug}" if data.is_plain else f"{e.plan.clips_per_epoch:,}"
        found.append(f"the run has {e.plan.schedule.total_steps} steps in all: {size} clips in batches of "
                     f"{e.config.train.global_batch} make {e.plan.steps_per_epoch:g} steps an epoch{epochs} "
                     "(train.phases, train.global_batch)")
    return found


def memory_gib(e: Experiment) -> tuple[list[float], float]:
    """GiB per rank, estimated: the states of ZeRO 0 to 3, and the activations of one forward pass. It has a plan."""
    assert e.plan is not None
    shape, train, precision = e.config.model.shape(), e.config.train, assumed(e.config.train.precision, on_cpu=e.on_cpu)
    states = [cost.state_gib(shape, zero_stage=stage, precision=precision, world_size=e.resources.world_size,
                             offload=train.offload == "optimizer") for stage in range(4)]
    return states, cost.activation_gib(shape, micro_batch=e.plan.micro_batch, precision=precision,
                                       checkpointing=int(e.config.model.activation_checkpointing))


def memory_warnings(e: Experiment) -> list[str]:
    """Whether a step will hardly fit in the memory of the GPUs, as far as their kind is known."""
    gpu = find_gpu(e.resources.gpu_type)
    if e.plan is None or e.on_cpu or gpu is None:
        return []
    states, activations = memory_gib(e)
    fixed = states[e.config.train.zero_stage]
    needed = fixed if e.config.train.micro_batch == "auto" else fixed + activations
    if needed <= gpu.memory_gib:
        return []
    less = "train.offload, a higher train.zero_stage or more GPUs need less" if fixed > gpu.memory_gib else \
        "--set train.micro_batch=auto finds the most clips that fit, model.activation_checkpointing needs less"
    asked = f"{fixed:.0f} of states, {activations:.0f} of activations with train.micro_batch {e.plan.micro_batch}"
    has = f"{gpu.name} has {gpu.memory_gib:g} at most"
    return [f"a GPU will need about {needed:.0f} GiB (estimated; {asked}), and {has}: {less}"]


def node_warnings(e: Experiment) -> list[str]:
    """Nodes that the run found unfit, and a list of nodes that leaves no other to take."""
    found = [e.avoided.said] if e.avoided.said else []
    if e.config.recovery.checks == "enforce" and e.place.cluster == "local":
        found.append("recovery.checks is enforce, and a job on this machine has no other node: it fails where a check finds "
                     "something (--checks warn)")
    if e.config.recovery.checks == "enforce" and e.profile.nodelist:
        found.append(f"recovery.checks is enforce and --nodelist is {e.profile.nodelist}: a node of that list that is unfit "
                     "cannot be left out, and the job fails then")
    return found


def warnings(e: Experiment) -> list[str]:
    """What may be a mistake and does not stop the job."""
    found, r = [*data_warnings(e), *memory_warnings(e), *node_warnings(e)], e.resources
    if e.place.unasked:
        found.append(f"nothing was checked with Slurm: {e.place.unasked}")
    if e.partition and not e.partition.up:
        found.append(f"partition {e.partition.name} is down: the job will wait")
    usable = sum(s.usable for s in e.partition.shapes if s.gpus >= r.gpus_per_node) if e.partition else r.nodes
    if e.partition and r.nodes > usable:
        found.append(f"{r.nodes} nodes are asked for and {usable} are up: the job will wait for the others")
    if e.config.train.device == "cpu" and r.gpus_per_node:
        found.append(f"train.device is cpu, yet {r.gpus_per_node} GPUs per node are asked for (--gpus-per-node 0)")
    if e.config.data.workers >= r.cpus_per_task > 1:
        found.append(f"data.workers is {e.config.data.workers} and a task has {r.cpus_per_task} CPUs: workers and training "
                     "will share them (--set data.workers=..., --cpus-per-task)")
    slowest_s = totals(read_attempts(e.run))["slowest_save_s"]
    if r.signal_delay_s < SAVE_MARGIN_S + slowest_s:
        found.append(f"signal_delay_s is {r.signal_delay_s}: Slurm may warn {SAVE_MARGIN_S} s late, and the slowest save of "
                     f"this run took {slowest_s:.0f} s, so a save before the time limit may be cut off (--signal-delay-s)")
    if e.place.cluster == "slurm" and str(e.run.path).startswith(tuple(f"{p}/" for p in NODE_LOCAL)):
        found.append(f"{e.run.path} usually lies on one machine alone; the nodes must see the same folder (--runs-dir)")
    return found
