"""What runs have used of machines: GPU-hours, core-hours, energy and CO2 of every job, by their own records. Stdlib only.

Energy is the first of what there is of a job:

    Slurm      ConsumedEnergyRaw of the accounting: what the nodes of the job have drawn; not of
               tasks of arrays, which share nodes (jobs/standing/spending.py)
    NVML       the counter of each GPU, read by the run itself (vidmae/runs/nodes/gpu_counter.py); the GPUs alone
    estimate   board power of the GPUs (vidmae/runs/gpus.py) x hours x `gpu_power_pct`; the GPUs alone

To the last two come cores x `watts_per_core` where a site gives that, and cores alone are counted by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vidmae.runs.attempts import Attempt, read_attempts
from vidmae.runs.gpus import find_gpu
from vidmae.runs.record import RunFolder, read_json

SLURM, NVML, ESTIMATE = "Slurm", "NVML", "estimate"
J_PER_KWH = 3.6e6
WHOLE_BOARD_PCT = 100.0


@dataclass(frozen=True)
class Rates:
    """What a site says of its power.

    Attributes:
        co2_g_per_kwh: Grams of CO2 (or of what warms as much) for a kWh of its electricity; None: not known.
        pue: Power usage effectiveness: all power of the building divided by that of its machines; None: cooling is left out.
        watts_per_core: What a CPU core that computes draws, with its share of memory and board; None: not counted.
        gpu_power_pct: Share of its board power that a GPU is estimated to draw; 100 is the most that it can.
    """

    co2_g_per_kwh: float | None = None
    pue: float | None = None
    watts_per_core: float | None = None
    gpu_power_pct: float | None = None

    @property
    def record(self) -> dict[str, float]:
        """What is given; run.json keeps it with every submission."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, weaker: Rates) -> Rates:
        """These rates, and where they say nothing those of another."""
        return Rates(**(weaker.record | self.record))


@dataclass(frozen=True)
class Use:
    """A job on its machines, all of its starts together; a task of an array is a job.

    Attributes:
        job_id: As Slurm or the launcher has it.
        started: Of its first start, seconds since 1970.
        seconds: That it had its machines.
        gpus: That it had.
        cores: That it had.
        gpu: What torch, else Slurm, calls its GPUs; empty where that is not known.
        energy_j: What was measured.
        energy_s: Seconds of it that the measurement covers.
        energy_by: Who measured: SLURM or NVML; empty where nobody did.
        user: Whose it is.
        sweep: The array that it is a task of, or empty.
        rates: As they were when it was submitted.
    """

    job_id: str
    started: float
    seconds: float
    gpus: int
    cores: int
    gpu: str = ""
    energy_j: float = 0.0
    energy_s: float = 0.0
    energy_by: str = ""
    user: str = ""
    sweep: str = ""
    rates: Rates = Rates()

    @property
    def gpu_h(self) -> float:
        """GPU-hours."""
        return self.seconds * self.gpus / 3600


@dataclass(frozen=True)
class Spent:
    """What several jobs have used together.

    Attributes:
        jobs: How many.
        gpu_h: GPU-hours.
        core_h: Core-hours.
        kwh: At the plugs of the machines, without cooling; None where nothing is known.
        by: Who says so: SLURM, NVML, ESTIMATE; several where jobs differ.
        measured_pct: Share of the seconds, weighted by GPUs (else cores), that a measurement covers.
        co2_kg: With `pue`; None where the site does not say what a kWh emits, or nothing is known of the energy.
        without: What is not counted, and the key of the profile that it lacks, a sentence each.
    """

    jobs: int
    gpu_h: float
    core_h: float
    kwh: float | None
    by: tuple[str, ...]
    measured_pct: float
    co2_kg: float | None
    without: tuple[str, ...]


def spent(uses: Iterable[Use], rates: Rates) -> Spent:
    """Add up jobs; where `rates` say nothing, those hold that a job was submitted with."""
    found = list(uses)
    kwh, co2_kg, by, unknown_gpu_h, core_h_alone = 0.0, 0.0, dict[str, None](), 0.0, 0.0
    no_co2, no_pue, known, covered, weight = False, False, False, 0.0, 0.0
    for use in found:
        mine = rates.over(use.rates)
        of_use, source = energy_kwh(use, mine)
        units = use.gpus or use.cores
        weight += units * use.seconds
        covered += units * min(use.energy_s, use.seconds)
        if of_use is None:
            unknown_gpu_h += use.gpu_h
            core_h_alone += 0.0 if use.gpus else use.seconds * use.cores / 3600
            continue
        known, kwh = True, kwh + of_use
        by[source] = None
        no_co2, no_pue = no_co2 or mine.co2_g_per_kwh is None, no_pue or mine.pue is None
        co2_kg += of_use * (mine.co2_g_per_kwh or 0.0) * (mine.pue or 1.0) / 1000
    without = []
    if unknown_gpu_h:
        without.append(f"energy of {unknown_gpu_h:,.1f} GPU-hours: the kind of GPU is not known")
    if core_h_alone:
        without.append(f"energy of {core_h_alone:,.1f} core-hours on CPUs: the profile has no watts_per_core")
    if known and no_co2:
        without.append("CO2: the profile has no co2_g_per_kwh")
    elif known and no_pue:
        without.append("cooling: the profile has no pue, so CO2 is that of the machines alone")
    return Spent(len(found), sum(use.gpu_h for use in found), sum(use.seconds * use.cores for use in found) / 3600,
                 kwh if known else None, tuple(name for name in (SLURM, NVML, ESTIMATE) if name in by),
                 100 * covered / weight if weight else 0.0, co2_kg if known and not no_co2 else None, tuple(without))


def energy_kwh(use: Use, rates: Rates) -> tuple[float | None, str]:
    """Energy of a job, and who says so; None where nothing is known.

    A measurement that covers a part of the seconds stands for all of them: the rest is taken to be like it.
    """
    hours = use.seconds / 3600
    cores_kwh = use.cores * (rates.watts_per_core or 0.0) * hours / 1000
    if use.energy_j > 0 and use.energy_s > 0:
        measured = use.energy_j / J_PER_KWH * max(1.0, use.seconds / use.energy_s)
        return measured + (0.0 if use.energy_by == SLURM else cores_kwh), use.energy_by
    if use.gpus:
        gpu = find_gpu(use.gpu)
        if gpu is None:
            return None, ""
        share = (WHOLE_BOARD_PCT if rates.gpu_power_pct is None else rates.gpu_power_pct) / 100
        return use.gpus * gpu.board_w * share * hours / 1000 + cores_kwh, ESTIMATE
    return (cores_kwh, ESTIMATE) if rates.watts_per_core is not None else (None, "")


def said_of_energy(found: Spent) -> str:
    """Energy and CO2 in a sentence; empty where nothing is known."""
    if found.kwh is None:
        return ""
    by = " and ".join("an estimate" if name == ESTIMATE else name for name in found.by)
    by += f"; {found.measured_pct:.0f} % of the time measured" if set(found.by) & {NVML, SLURM} else ""
    co2 = "" if found.co2_kg is None else f", {found.co2_kg:,.3g} kg of CO2"
    return f"{found.kwh:,.4g} kWh (by {by}){co2}"


def uses_of(run: RunFolder) -> list[Use]:
    """The jobs of a run that had machines, by its own records, oldest first.

    A job that has left no word of its time is left out: it waits, it has just begun, or it died before its first sign.

    Raises:
        ValueError: A record is damaged; the message names it.
    """
    try:
        return _uses_of(run)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"run.json or attempts.json of {run.path.name} is damaged ({type(error).__name__})") from error


def _uses_of(run: RunFolder) -> list[Use]:
    record, result = read_json(run.record) or {}, read_json(run.result) or {}
    entries = {str(entry["job_id"]): entry for entry in record.get("submissions") or () if entry.get("job_id")}
    attempts: dict[str, list[Attempt]] = {}
    for attempt in read_attempts(run):
        attempts.setdefault(attempt.job_id, []).append(attempt)
    user, found = _owner(run.path), []
    for job_id in dict.fromkeys([*attempts, *entries]):
        entry, mine = entries.get(job_id, {}), attempts.get(job_id, ())
        use = use_of(entry, mine, job_id, user)
        seconds = max(use.seconds, _by_exit(run, job_id, entry), 0.0 if mine else _by_result(result, job_id))
        if seconds:
            found.append(replace(use, seconds=seconds))
    return sorted(found, key=lambda use: use.started)


def use_of(entry: Mapping[str, Any], attempts: Sequence[Attempt], job_id: str, user: str) -> Use:
    """A job by its submission in run.json, which may be empty, and by its attempts, of which there may be none."""
    nodes, tasks = int(entry.get("nodes") or 1), int(entry.get("tasks_per_node") or 1)
    ranks = max((a.ranks for a in attempts), default=0)
    gpu = next((a.gpu for a in attempts if a.gpu), "")
    gpus = nodes * int(entry.get("gpus_per_node") or 0) if entry else ranks if gpu else 0
    cores = nodes * tasks * int(entry.get("cpus_per_task") or 1) if entry else ranks
    measured = [a for a in attempts if a.energy_s]
    covered_s = sum(a.energy_s for a in measured)
    rates = {field.name: entry[field.name] for field in fields(Rates) if field.name in entry}
    return Use(job_id, min((a.started for a in attempts), default=float(entry.get("submitted_at_s") or 0.0)),
               sum(max(0.0, a.updated - a.started) for a in attempts), gpus, cores,
               gpu or str(entry.get("gpu_type") or ""), sum(a.energy_j for a in measured), covered_s,
               NVML if covered_s else "", user, Path(str(entry.get("array") or "")).name, Rates(**rates))


def _by_exit(run: RunFolder, job_id: str, entry: Mapping[str, Any]) -> float:
    """Seconds of a local job by the record of its end, which a cell without training has, too."""
    try:
        ended = read_json(run.submit / job_id / "exit.json") or {}
    except ValueError:
        return 0.0
    began = ended.get("started", entry.get("submitted_at_s"))
    return max(0.0, float(ended["time"]) - float(began)) if began and "time" in ended else 0.0


def _by_result(result: Mapping[str, Any], job_id: str) -> float:
    """Seconds of learning and testing of the job that wrote the result: for a cell without attempts, such as a probe."""
    mine = str(result.get("job_id")) == job_id
    return float(result.get("train_s") or 0.0) + float(result.get("eval_s") or 0.0) if mine else 0.0


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError, NotImplementedError):  # a user id without a name, as in a container
        return ""
