"""What of runs goes into an archive: what a paper needs, and no footage, name of footage, path, host or account.

    NAME/runs/<run>/            config.yaml, run.json, result.json, metrics, attempts, weights.safetensors, MODEL_CARD.md,
                                quarantine_counts.json; `code` is a link
    NAME/code/<hash>/           each snapshot once
    NAME/tables/                of --tables
    NAME/environment/           the packages that the runs' launcher noted, and those where the archive was made
    NAME/LICENCES.md

Records are copied without what is private (jobs/keeping/redaction.py). Logs, checkpoints, locks, heartbeats and names of
nodes stay behind. Pictures and pages go only where --pictures asks for it, predictions (by content hash) with --predictions.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from jobs.keeping.archive_file import CONTENTS, Member
from jobs.keeping.redaction import FOOTAGE, REMOVED, Redaction, private_paths, what_is_private
from jobs.keeping.spare_code import content_of, files_of
from jobs.keeping.whole_weights import damage_of
from jobs.place.snapshot import ROOT
from vidmae.model.formats.file_model import model_in
from vidmae.runs.quarantine import read_quarantine
from vidmae.runs.record import SCHEMA, RunFolder, read_json
from vidmae.settings.layers import ConfigError, read_yaml
from vidmae.weights.finding import Found
from vidmae.weights.model_card import card_of, to_markdown

AS_THEY_ARE = ("metrics.jsonl", "nonfinite.jsonl", "evaluations.jsonl")
RECORDS = ("run.json", "result.json", "attempts.json", "choices.json", "precision.json")
PICTURES = ("reconstruction.png", "report.html")
TEXTS, FIGURES = (".csv", ".md", ".tex", ".json", ".jsonl", ".txt"), (".png", ".svg", ".pdf", ".html", ".jpg")
EXAMPLE = "jobs/clusters/example.yaml"
COMMON_NAMES = ("root", "user", "admin", "local", "localhost", "node", "host")


@dataclass(frozen=True)
class Wanted:
    """What goes in besides records, code, metrics and weights.

    Attributes:
        weights, predictions, pictures: Whether they do.
        tables: Folders of tables.
        licence: Of the weights, for the model card.
    """

    weights: bool = True
    predictions: bool = False
    pictures: bool = False
    tables: Sequence[Path] = ()
    licence: str = ""


@dataclass
class Pack:
    """What an archive will hold.

    Attributes:
        members: Name -> file.
        links: Name -> where it leads.
        left_out: What stays behind -> why; names of footage are none of them.
        time_s: When the newest of the runs ended.
    """

    members: dict[str, Member] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    time_s: int = 0


def pack(runs: Sequence[RunFolder], runs_dir: Path, wanted: Wanted) -> Pack:
    """Everything of the runs that goes into an archive.

    Args:
        runs: One or more.
        runs_dir: The folder that they lie in.
        wanted: What goes in besides.
    Raises:
        ConfigError: A run has no run.json or no config.yaml, its weights are damaged, or there is no folder of tables.
    """
    found, code = Pack(), dict[Path, str]()
    hidden = private_paths(runs_dir, _folders_of_data(runs))
    for run in sorted(runs, key=lambda run: run.path.name):
        _add_run(found, run, Redaction(runs_dir, _words(run)), wanted, hidden)
        if not run.code.is_dir():
            found.left_out[f"runs/{run.path.name}/code"] = "there is none"
            continue
        real = run.code.resolve()
        if real not in code:
            code[real] = content_of(real)[:16]
            _add_code(found, real, f"code/{code[real]}", hidden)
        found.links[f"runs/{run.path.name}/code"] = f"../../code/{code[real]}"
    for folder in wanted.tables:
        _add_tables(found, folder, runs_dir, wanted, hidden)
    _add_environment(found, runs)
    found.members["LICENCES.md"] = Member(_licences(wanted).encode())
    names = sorted(run.path.name for run in runs)
    record = {"schema": SCHEMA, "kind": "archive", "runs": names, "links": found.links, "left_out": found.left_out}
    found.members[CONTENTS] = Member(_json(record))
    return found


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def _add_run(found: Pack, run: RunFolder, redaction: Redaction, wanted: Wanted, hidden: set[str]) -> None:
    top, record = f"runs/{run.path.name}", read_json(run.record)
    if record is None or not run.config.is_file():
        raise ConfigError(f"{run.path} has no {'run.json' if record is None else 'config.yaml'}, so it is no run to archive")
    config = redaction.record(read_yaml(run.config).values)
    found.members[f"{top}/config.yaml"] = Member(yaml.safe_dump(config, sort_keys=False, width=10**6).encode())
    for name in RECORDS:
        if (said := read_json(run.path / name)) is not None:
            found.members[f"{top}/{name}"] = Member((json.dumps(redaction.record(said), indent=2) + "\n").encode())
            found.time_s = max(found.time_s, int(said.get("finished", 0)))
    for name in AS_THEY_ARE:
        if (run.path / name).is_file():
            _add_text(found, f"{top}/{name}", run.path / name, hidden)
    if run.quarantine.is_file():
        counts = Counter(redaction.reason(each.reason) for _, each in read_quarantine(run))
        said = {"schema": SCHEMA, "replaced": sum(counts.values()), "reasons": dict(sorted(counts.items()))}
        found.members[f"{top}/quarantine_counts.json"] = Member(_json(said))
    _add_weights(found, run, top, wanted)
    several = sorted(run.conditions.glob("*.npz")) if run.conditions.is_dir() else []
    for path in [path for path in (run.predictions, run.cues, *several) if path.is_file()]:
        _if(wanted.predictions, found, f"{top}/{path.relative_to(run.path)}", path, "--predictions")
    for path in [run.path / name for name in PICTURES if (run.path / name).is_file()]:
        _if(wanted.pictures, found, f"{top}/{path.name}", path, "it may show footage; --pictures")


def _add_weights(found: Pack, run: RunFolder, top: str, wanted: Wanted) -> None:
    name = f"{top}/{run.weights.name}"
    if not run.weights.is_file():
        found.left_out[name] = "the run kept none" if run.result.is_file() else "the run is not done"
        return
    if not wanted.weights:
        found.left_out[name] = "--no-weights"
        return
    if damage := damage_of(run.weights):
        raise ConfigError(f"{run.weights} is damaged: {damage} (--no-weights packs the rest)")
    found.members[name] = Member(run.weights)
    try:
        model = model_in(run.weights)
    except ValueError:
        model = None
    if model is None:
        found.left_out[f"{top}/MODEL_CARD.md"] = "no model of this suite can be made out in the weights"
        return
    card = to_markdown(card_of(Found(run.path, run.path.name), wanted.licence), model, "vidmae")
    found.members[f"{top}/MODEL_CARD.md"] = Member(card.encode())


def _if(asked: bool, found: Pack, name: str, path: Path, why_not: str) -> None:
    if asked:
        found.members[name] = Member(path)
    else:
        found.left_out[name] = f"{why_not} takes it" if why_not.startswith("--") else f"{why_not} takes it all the same"


def _add_text(found: Pack, name: str, path: Path, hidden: set[str], *, names: bool = True, runs_dir: Path | None = None,
              ) -> None:
    """A text as it is, unless something in it is private; `runs_dir` in it becomes `runs`."""
    try:
        text = path.read_bytes().decode()
        text = text if runs_dir is None else text.replace(str(runs_dir), "runs")
    except UnicodeDecodeError:
        found.left_out[name] = "it is no text"
        return
    if why := what_is_private(text, hidden, names=names):
        found.left_out[name] = why
    else:
        found.members[name] = Member(text.encode())


def _add_code(found: Pack, code: Path, top: str, hidden: set[str]) -> None:
    """A snapshot without profiles of sites, which hold accounts, folders and variables."""
    for name in files_of(code):
        if name.startswith("jobs/clusters/") and name != EXAMPLE and name.endswith((".yaml", ".yml")):
            found.left_out[f"{top}/{REMOVED}.yaml"] = "profiles of sites hold accounts, folders and variables"
        elif name == "DIRTY.diff" and "jobs/clusters/" in (code / name).read_text(errors="replace"):
            found.left_out[f"{top}/{name}"] = "it changes a profile of a site"
        else:
            edited = name == "DIRTY.diff" or _is_edited_recipe(code, name)
            _add_text(found, f"{top}/{name}", code / name, hidden, names=edited)


def _is_edited_recipe(code: Path, name: str) -> bool:
    """Whether a file of settings is another one than in this clone: somebody may have written paths and names into it."""
    here = ROOT / name
    return name.endswith((".yaml", ".yml")) and not (here.is_file() and here.read_bytes() == (code / name).read_bytes())


def _add_tables(found: Pack, folder: Path, runs_dir: Path, wanted: Wanted, hidden: set[str]) -> None:
    if not folder.is_dir():
        raise ConfigError(f"--tables {folder} is not a folder")
    unnamed: Counter[tuple[str, str]] = Counter()  # (ending, why): names may be those of children
    for path in sorted(folder.rglob("*")):
        name = f"tables/{path.relative_to(folder)}"
        if name in found.members:
            raise ConfigError(f"two folders of --tables have a file {path.relative_to(folder)}")
        if path.is_symlink() or not path.is_file():
            continue
        if FOOTAGE.search(str(path.relative_to(folder).with_suffix(""))):
            unnamed[path.suffix, "a name holds what looks like the name of a video or picture"] += 1
        elif path.suffix in TEXTS:
            _add_text(found, name, path, hidden, runs_dir=runs_dir)
        elif path.suffix in FIGURES:
            if wanted.pictures:
                found.members[name] = Member(path)
            else:
                unnamed[path.suffix, "pictures and pages; --pictures takes them all the same"] += 1
        else:
            unnamed[path.suffix, f"only {', '.join(TEXTS)} are tables"] += 1
    for (suffix, why), count in unnamed.items():
        ending = suffix if re.fullmatch(r"\.\w{1,5}", suffix, re.ASCII) else ""
        found.left_out[f"tables/{len(found.left_out)}{ending}"] = f"{count} files: {why}"


def _add_environment(found: Pack, runs: Sequence[RunFolder]) -> None:
    noted = {run.path.name: (read_json(run.record) or {}).get("environment") for run in runs}
    kept = {name: said for name, said in noted.items() if said}
    said = {"runs": kept or None, "not_recorded": sorted(noted.keys() - kept.keys()),
            "packed_with": {"python": platform.python_version(), "system": platform.system(), "machine": platform.machine()}}
    found.members["environment/environment.json"] = Member(_json(said))
    found.members["environment/packed_with.txt"] = Member("".join(f"{line}\n" for line in installed()).encode())


@cache
def installed() -> tuple[str, ...]:
    """The installed packages as `name==version`, sorted; without this suite, whose commit says more."""
    named = ((each.metadata["Name"], each.version) for each in metadata.distributions())
    found = {(str(name).lower(), version) for name, version in named if name}
    return tuple(f"{name}=={version}" for name, version in sorted(found) if name != "vidmae")


def _licences(wanted: Wanted) -> str:
    return ("# Licences\n\n"
            "- Code: no licence is claimed yet; until one is, all rights are reserved. See the README of vidmae.\n"
            f"- Weights: {wanted.licence or 'unknown; ask the people who trained them'}.\n"
            "- Data: none are in this archive. They have licences and conditions of their own, which may also hold for "
            "weights, tables and predictions that were made with them.\n")


def _words(run: RunFolder) -> set[str]:
    """Names of hosts and of the user, as far as the run's records and this machine say them."""
    record, beat = read_json(run.record) or {}, read_json(run.heartbeat) or {}
    hosts = {str(entry.get("host", "")) for entry in record.get("submissions", [])} | {str(beat.get("host", ""))}
    with contextlib.suppress(KeyError, OSError):
        hosts.add(getpass.getuser())
    return {word for word in hosts if len(word) >= 3 and word not in COMMON_NAMES}


def _folders_of_data(runs: Sequence[RunFolder]) -> set[str]:
    """The folders of the manifests that runs name."""
    found = set()
    for run in runs:
        record = read_json(run.record) or {}
        paths = [record.get(key) for key in ("manifest", "val_manifest", "subset")]
        paths += [one.get("manifest") for one in record.get("sources", [])]
        found |= {str(Path(path).parent) for path in paths if path and Path(path).is_absolute()}
    return found
