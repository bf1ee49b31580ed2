"""What a site says of itself: the profile's schema, its YAML, and the resource flags as layers over it.

The module is not called `profile`: a script in jobs/ would then hide the standard library's module of that name from
torch.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from jobs.place.catalogue import Catalogue, make_catalogue
from jobs.place.notify_ways import WEBHOOK, check_way
from jobs.place.scheduler import slurm
from vidmae.runs.nodes.usage import Rates
from vidmae.settings.layers import ConfigError, Layer, build, nearest, read_yaml

CLUSTERS = Path(__file__).parents[1] / "clusters"
OWN_FLAGS = {  # sbatch options that have a flag (or a meaning) of their own here
    "partition": "--partition", "account": "--account", "qos": "--qos", "nodes": "--nodes", "time": "--time",
    "gpus-per-node": "--gpus-per-node", "ntasks-per-node": "--tasks-per-node", "cpus-per-task": "--cpus-per-task",
    "mem": "--mem", "constraint": "--constraint", "exclude": "--exclude", "nodelist": "--nodelist",
    "dependency": "--dependency", "job-name": "--job-name", "signal": "signal_delay_s in the profile",
    "output": "", "error": "", "open-mode": "", "chdir": "", "comment": "", "array": "", "ntasks": "", "gpus": "",
    "wrap": "", "parsable": "", "test-only": "", "export": "env in the profile",
}
SBATCH_VARIABLES = {"partition": "SBATCH_PARTITION", "account": "SBATCH_ACCOUNT", "qos": "SBATCH_QOS",
                    "time": "SBATCH_TIMELIMIT", "constraint": "SBATCH_CONSTRAINT"}
SIZES = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def _check(ok: bool, key: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{key} is {value!r}, allowed: {allowed} (flag --{key.replace('_', '-')}, or the profile)")


def is_day(text: str) -> bool:
    """Whether a text is a day of the calendar, such as 2026-01-31."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@dataclass(frozen=True)
class ClusterProfile:
    """A site: what is asked of Slurm for each job, and how a job starts there. None and empty: read from Slurm."""

    partition: str = ""
    """Partition (queue); empty takes the cluster's default."""
    account: str = ""
    """Account that is billed."""
    qos: str = ""
    """Quality of service."""
    nodes: int = 1
    """Nodes of a job."""
    gpus_per_node: int | None = None
    """GPUs per node, one task each; 0 trains on CPUs."""
    tasks_per_node: int | None = None
    """Tasks (ranks) per node; only where gpus_per_node is 0, else there is one per GPU."""
    cpus_per_task: int | None = None
    """CPUs per task: the training process and its loader workers."""
    mem_gib: float | None = None
    """Memory per node in GiB; 0 takes all of the node's."""
    time: str = ""
    """Time limit, in any form that sbatch takes: minutes, HH:MM:SS, D-HH:MM ..."""
    constraint: str = ""
    """Node features."""
    exclude: str = ""
    """Nodes to avoid."""
    nodelist: str = ""
    """Nodes to use."""
    dependency: str = ""
    """Jobs to wait for, such as afterok:123."""
    job_name: str = ""
    """Name in squeue; empty takes the run's id."""
    signal_delay_s: int | None = None
    """Seconds between Slurm's warning signal and the time limit; None takes 300, at most a quarter of the limit."""
    max_requeues: int = 20
    """How often a job that was stopped before its end is put back into the queue."""
    notify: tuple[str, ...] = ()
    """Who is told how a run or the array of a sweep ended, such as mail or webhook:FILE (jobs/place/notify_ways.py)."""
    setup: tuple[str, ...] = ()
    """Shell lines that run on the first node before srun: module load ..., source activate ..."""
    python: str = ""
    """Shell command that starts Python on the nodes; empty takes the Python of the launcher."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables of the job, beside those that it inherits."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Further sbatch options: long name without dashes -> value; an empty value for a switch."""
    data: dict[str, str] = field(default_factory=dict)
    """Catalogue: data set -> manifest or folder; relative paths start at the profile's folder."""
    budget_gpu_hours: float | None = None
    """GPU-hours that the runs of a folder may use together; a submission that would pass it asks."""
    budget_since: str = ""
    """The first day of the budget, such as 2026-01-31; empty counts all jobs."""
    co2_g_per_kwh: float | None = None
    """Grams of CO2 for a kWh of the site's electricity."""
    pue: float | None = None
    """Power usage effectiveness: all power of the building divided by that of its machines."""
    watts_per_core: float | None = None
    """Watts of a CPU core that computes, with its share of memory and board."""
    gpu_power_pct: float | None = None
    """Share of its board power that a GPU is estimated to draw where nobody measures; None takes 100, the most."""

    def __post_init__(self) -> None:
        _check(self.nodes >= 1, "nodes", self.nodes, "1 or more")
        _check(self.gpus_per_node is None or self.gpus_per_node >= 0, "gpus_per_node", self.gpus_per_node, "0 or more")
        for key in ("tasks_per_node", "cpus_per_task"):
            value = getattr(self, key)
            _check(value is None or value >= 1, key, value, "1 or more")
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise ConfigError(f"tasks_per_node is {self.tasks_per_node}, allowed: {self.gpus_per_node}, one task per "
                              "GPU (leave --tasks-per-node out, or set --gpus-per-node 0 for CPUs)")
        _check(self.mem_gib is None or self.mem_gib >= 0, "mem_gib", self.mem_gib, "0 (all of a node) or more GiB")
        _check(self.signal_delay_s is None or self.signal_delay_s >= 1, "signal_delay_s", self.signal_delay_s, "1 s or more")
        _check(self.max_requeues >= 0, "max_requeues", self.max_requeues, "0 (never) or more")
        self._check_power()
        if self.time:
            try:
                slurm.parse_time(self.time)
            except ValueError as error:
                raise ConfigError(f"time is {self.time!r}: {error} (flag --time, or the profile)") from error
        for way in self.notify:
            check_way(way)
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value):
                raise ConfigError(f"{f.name} is {value!r}, allowed: text on one line")
        for name, value in self.env.items():
            _check(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None, "env", name, "a shell variable's name")
            _check("\0" not in value, "env", name, "a value without zero bytes")
        for name, value in self.sbatch.items():
            self._check_option(name, value)

    @property
    def rates(self) -> Rates:
        """What the site says of its power."""
        return Rates(self.co2_g_per_kwh, self.pue, self.watts_per_core, self.gpu_power_pct)

    def _check_power(self) -> None:
        for key, least, most, allowed in (
                ("budget_gpu_hours", 0.0, math.inf, "0 or more"), ("co2_g_per_kwh", 0.0, math.inf, "0 or more grams"),
                ("pue", 1.0, math.inf, "1 or more"), ("watts_per_core", 0.0, math.inf, "0 or more watts"),
                ("gpu_power_pct", 1.0, 100.0, "1 to 100 %")):
            value = getattr(self, key)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{key} is {value!r}, allowed: {allowed} (in the profile)")
        if self.budget_since and not is_day(self.budget_since):
            raise ConfigError(f"budget_since is {self.budget_since!r}, allowed: a day such as 2026-01-31 (in the profile)")

    @staticmethod
    def _check_option(name: str, value: str) -> None:
        if name in OWN_FLAGS:
            way = f"use {OWN_FLAGS[name]}" if OWN_FLAGS[name] else "the launcher sets it"
            raise ConfigError(f"sbatch option {name!r} cannot be passed through --sbatch: {way}")
        _check(re.fullmatch(r"[a-z][a-z0-9-]*", name) is not None, "sbatch", name, "an option's long name, as sbatch has it")
        _check(not re.search(r"[\x00-\x1f\x7f]", value), "sbatch", value, "text on one line")


@dataclass(frozen=True)
class Site:
    """A profile as it was found, with what it says beside resources.

    Attributes:
        name: Of the profile, or empty where there is none.
        layers: The profile's resources, from the weakest to the strongest.
        config: Its `config:` section.
        catalogue: Its `data:` section.
    """

    name: str = ""
    layers: tuple[Layer, ...] = ()
    config: tuple[Layer, ...] = ()
    catalogue: Catalogue = field(default_factory=Catalogue)


def find_site(given: str | None, cluster: str | None) -> Site:
    """The site profile: --profile, VIDMAE_PROFILE, or the file in jobs/clusters/ that has the cluster's name.

    Args:
        given: What --profile says: a name or a path.
        cluster: What the Slurm cluster calls itself; None without Slurm.
    Raises:
        ConfigError: There is no such profile, or it cannot be used.
    """
    given = given or os.environ.get("VIDMAE_PROFILE")
    if given:
        is_path = given.endswith((".yaml", ".yml")) or "/" in given
        path = Path(given).expanduser() if is_path else CLUSTERS / f"{given}.yaml"
        if not path.is_file():
            known = sorted(p.stem for p in CLUSTERS.glob("*.yaml"))
            raise ConfigError(f"no cluster profile {given!r}{nearest(given, known)}; there are: {', '.join(known)} (or a "
                              "path to a .yaml; jobs/clusters/example.yaml explains every line)")
        return read_site(path)
    path = CLUSTERS / f"{cluster}.yaml"
    return read_site(path) if cluster and path.is_file() else Site()


def read_site(path: Path) -> Site:
    """Read a profile.

    Raises:
        ConfigError: It cannot be read, or has an unknown key or a value that cannot be.
    """
    layer = read_yaml(path, f"profile {path.name}")
    values: dict[str, Any] = {**layer.values, **_texts(path)}
    inner, data = values.pop("config", None) or {}, values.get("data") or {}
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{layer.where('config')}: config must hold `key: value` lines, not {inner!r}")
    lines = {key.removeprefix("config."): n for key, n in layer.lines.items() if key.startswith("config.")}
    own = Layer(layer.origin, {k: v for k, v in values.items() if v is not None}, layer.lines)
    build(ClusterProfile, [own])
    for way in own.values.get("notify") or ():
        if str(way).startswith(f"{WEBHOOK}:") and "://" in str(way):
            raise ConfigError(f"{layer.where('notify')}: the address of a webhook is a secret, and a profile is copied to "
                              f"the code of every run; write {WEBHOOK}:FILE, with the address in a file of your own")
    catalogue = make_catalogue(data, path.resolve().parent, str(path), {n: layer.where(f"data.{n}") for n in data})
    return Site(path.stem, (own,), (Layer(layer.origin, inner, lines),), catalogue if data else Catalogue())


def _texts(path: Path) -> dict[str, Any]:
    """Settings that are text, as they stand in the file: YAML alone would read `time: 1:00:00` as the number 3600."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    hints = {f.name: str(f.type) for f in dataclasses.fields(ClusterProfile)}
    texts: dict[str, Any] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        hint = hints.get(key.value, "")
        if hint == "str" and isinstance(value, yaml.ScalarNode) and not value.tag.endswith(":null"):
            texts[key.value] = value.value
        elif hint == "dict[str, str]" and isinstance(value, yaml.MappingNode):
            texts[key.value] = {k.value: "" if v.tag.endswith(":null") else v.value
                                for k, v in value.value if isinstance(v, yaml.ScalarNode)}
    return texts


def environment_layer() -> Layer:
    """The user's SBATCH_* variables: sbatch would let them win over the batch script, so they are read here instead."""
    found = {key: os.environ[name] for key, name in SBATCH_VARIABLES.items() if os.environ.get(name)}
    return Layer("SBATCH_* variable", found)


def flag_layers(flags: Mapping[str, Any], options: Sequence[str]) -> list[Layer]:
    """Resource flags as layers, one each, so that an error names the flag.

    Args:
        flags: Field of ClusterProfile -> value; None where the flag was not given.
        options: `--sbatch KEY=VALUE` items.
    Raises:
        ConfigError: An option is not of the form KEY=VALUE.
    """
    layers = [Layer(f"--{key.replace('_', '-')}", {key: value}) for key, value in flags.items() if value is not None]
    for item in options:
        name, _, value = item.partition("=")
        name = name.strip().lstrip("-").replace("_", "-")
        if not name:
            raise ConfigError(f"--sbatch {item!r} is not of the form KEY=VALUE")
        layers.append(Layer("--sbatch", {"sbatch": {name: value}}))
    return layers


def parse_mem(text: str) -> float:
    """`--mem` of sbatch in GiB: a number with K, M, G or T, MiB where there is no letter, 0 for all of a node.

    Raises:
        ValueError: Another form.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is no amount of memory; write for example 480G, 65536 (MiB), or 0 for all of a node")
    return float(match[1]) * SIZES[match[2].upper() or "M"] / 1024
