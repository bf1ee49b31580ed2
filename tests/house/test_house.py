"""The rules of the house that no linter knows: who may import whom, and how fast a launcher starts."""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import SLOW
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT, write_manifest
from vidmae.start import uncaught

WINGS = ("vidmae", "jobs", "sweeps", "analysis")
ROOMS: dict[str, set[str]] = {  # a room -> the rooms that it may import; of another wing the wing alone: all of it
    # the science: runs on compute nodes and in notebooks, knows nothing of Slurm. Lower rooms first
    "vidmae.start": set(),
    "vidmae.settings": set(),
    "vidmae.settings.programs": {"vidmae.settings"},
    "vidmae.runs": {"vidmae.settings"},
    "vidmae.runs.nodes": {"vidmae.settings", "vidmae.runs"},
    "vidmae.footage.decoders": set(),
    "vidmae.footage.known": {"vidmae.runs"},
    "vidmae.footage.archives": {"vidmae.runs", "vidmae.footage.decoders"},
    "vidmae.footage": {"vidmae.settings", "vidmae.runs", "vidmae.footage.decoders", "vidmae.footage.known",
                       "vidmae.footage.archives"},
    "vidmae.labels": {"vidmae.settings", "vidmae.runs", "vidmae.footage", "vidmae.footage.known"},
    "vidmae.clips": {"vidmae.settings", "vidmae.runs", "vidmae.footage", "vidmae.labels"},
    "vidmae.mixtures": {"vidmae.settings", "vidmae.runs", "vidmae.footage", "vidmae.clips"},
    "vidmae.model.formats": {"vidmae.settings"},
    "vidmae.model": {"vidmae.settings", "vidmae.runs", "vidmae.model.formats"},
    "vidmae.ranks": {"vidmae.settings", "vidmae.runs", "vidmae.runs.nodes", "vidmae.footage"},
    "vidmae.ranks.saving": {"vidmae.settings", "vidmae.runs", "vidmae.runs.nodes", "vidmae.ranks"},
    "vidmae.ranks.health": {"vidmae.settings", "vidmae.runs", "vidmae.runs.nodes", "vidmae.footage", "vidmae.ranks"},
    "vidmae.preparing": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.footage.decoders", "vidmae.footage.known",
                         "vidmae.footage.archives", "vidmae.ranks"},
    "vidmae.evaluate.corruptions": {"vidmae.settings", "vidmae.footage"},
    "vidmae.evaluate": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.labels", "vidmae.clips", "vidmae.model",
                        "vidmae.ranks", "vidmae.evaluate.corruptions"},
    "vidmae.evaluate.temporal": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.footage.known", "vidmae.clips", "vidmae.model",
                                 "vidmae.ranks", "vidmae.evaluate"},
    "vidmae.evaluate.dense": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model", "vidmae.evaluate"},
    "vidmae.insight": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model", "vidmae.ranks",
                       "vidmae.evaluate"},
    "vidmae.insight.attention": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model",
                                 "vidmae.ranks", "vidmae.insight"},
    "vidmae.insight.interpolation": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model",
                                     "vidmae.model.formats", "vidmae.ranks", "vidmae.insight"},
    "vidmae.insight.surprise": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model",
                                "vidmae.ranks", "vidmae.insight", "vidmae.insight.interpolation"},
    "vidmae.weights": {"vidmae.settings", "vidmae.runs", "vidmae.footage", "vidmae.clips", "vidmae.model",
                       "vidmae.model.formats"},
    "vidmae.train": {"vidmae.settings", "vidmae.settings.programs", "vidmae.runs", "vidmae.runs.nodes", "vidmae.footage", "vidmae.footage.archives", "vidmae.labels", "vidmae.clips", "vidmae.model",
                     "vidmae.ranks", "vidmae.ranks.saving", "vidmae.ranks.health", "vidmae.evaluate", "vidmae.evaluate.corruptions", "vidmae.evaluate.temporal", "vidmae.evaluate.dense",
                     "vidmae.mixtures", "vidmae.insight"},
    # the launchers: run on the login node, import neither torch nor deepspeed
    "jobs.place.scheduler": set(),
    "jobs.place": {"vidmae", "jobs.place.scheduler"},
    "jobs.standing": {"vidmae", "jobs.place.scheduler"},
    "jobs.submit": {"vidmae", "jobs.place.scheduler", "jobs.place", "jobs.standing"},
    "jobs.submit.example": {"vidmae", "jobs.place", "jobs"},
    "jobs.keeping": {"vidmae", "jobs.place.scheduler", "jobs.place", "jobs.standing", "jobs.submit"},
    "jobs.watching": {"vidmae", "jobs.place.scheduler", "jobs.place", "jobs.standing", "jobs"},
    "jobs.watching.screens": {"vidmae", "jobs.place.scheduler", "jobs.standing", "jobs.watching"},
    "jobs": {"vidmae", "jobs.place.scheduler", "jobs.place", "jobs.standing", "jobs.submit", "jobs.submit.example", "jobs.keeping", "jobs.watching",
             "jobs.watching.screens"},
    # grids of runs as Slurm arrays
    "sweeps.grid": {"vidmae", "jobs"},
    "sweeps.run": {"vidmae", "jobs", "sweeps.grid"},
    "sweeps.pretraining": {"vidmae", "jobs", "sweeps.grid", "sweeps.run"},
    "sweeps": {"vidmae", "jobs", "sweeps.grid", "sweeps.run", "sweeps.pretraining"},
    # results -> tables, figures, pages
    "analysis.results": {"vidmae"},
    "analysis.tables": {"vidmae", "analysis.results"},
    "analysis.tables.curves": {"vidmae", "analysis.results", "analysis.tables"},
    "analysis.tables.curves.robust": {"vidmae", "analysis.results", "analysis.tables", "analysis.tables.curves"},
    "analysis.tables.curves.classwise": {"vidmae", "analysis.results", "analysis.tables"},
    "analysis.tables.survey.neighbours": {"vidmae", "analysis.tables"},
    "analysis.tables.survey": {"vidmae", "analysis.tables"},
    "analysis.page": {"vidmae", "analysis.results"},
    "analysis.page.replication": {"vidmae", "analysis.results", "analysis.page"},
    "analysis.tables.comparing": {"vidmae", "analysis.results", "analysis.tables", "analysis.page"},
    "analysis": {"vidmae", "analysis.results", "analysis.tables", "analysis.tables.curves", "analysis.tables.curves.robust", "analysis.tables.curves.classwise",
                 "analysis.tables.survey", "analysis.tables.survey.neighbours", "analysis.tables.comparing", "analysis.page"},
}
READ_BY_ANALYSIS = {  # of vidmae, analysis takes settings and runs, and these few modules that load no torch
    "vidmae.start.uncaught", "vidmae.settings", "vidmae.runs", "vidmae.footage.manifest", "vidmae.ranks.local_program", "vidmae.clips.clips_flags",
    "vidmae.insight.embedding_files", "vidmae.insight.paired", "vidmae.labels.shots", "vidmae.labels.splits",
    "vidmae.weights.finding"}
SAME_NAME = {"pretrain", "interpolate", "embed", "scaling", "robustness", "surprise", "weights", "probes", "watch"}  # a command, and the program or the command that goes with it
MOST_ENTRIES = 16
SINGLE_SITES = {  # a heavy library -> the only modules that may import it
    "deepspeed": {"vidmae.ranks.engine"},
    "submitit": {"jobs.submit.launch", "jobs.submit.local_controller"},
    "argcomplete": {"jobs.place.console"},
    "decord": {"vidmae.footage.decoders.with_decord"},
    "av": {"vidmae.footage.decoders.packets", "vidmae.footage.decoders.with_pyav", "vidmae.footage.encode",
           "vidmae.evaluate.corruptions.clip_faults"},
    "torchcodec": {"vidmae.footage.decoders.with_torchcodec"},
    "pandas": {"analysis"},
    "pyarrow": {"vidmae.footage.manifest_columns"},
    "matplotlib": {"analysis"},
    "jinja2": {"analysis.page.html"},
    "statsmodels": {"analysis.tables.curves.classwise.factor_fit"},
    "safetensors": {"vidmae.model.weights"},
    "huggingface_hub": {"vidmae.weights.hub"},
    "cv2": {"vidmae.clips.transforms", "vidmae.insight.vision", "vidmae.preparing.kept_frames", "vidmae.evaluate.corruptions.pixels"},
    "pynvml": {"vidmae.runs.nodes.nvml"},
    "simplejpeg": {"vidmae.footage.archives.jpeg"},
    "textual": {"jobs.watching.screens"},
    "skimage": {"vidmae.insight.interpolation.scores", "vidmae.preparing.archive_parts"},
    "sklearn": {"vidmae.evaluate.probes", "vidmae.evaluate.clustering", "analysis.tables.survey.neighbours.nearest", "analysis.tables.survey.neighbours.embedding_pictures"},
}
STDLIB_ONLY = {
    "jobs.standing.arrays", "jobs.place.scheduler.commands", "jobs.place.scheduler.slurm", "vidmae.footage.video_list",
    "vidmae.start.uncaught", "vidmae.ranks.preempt", "vidmae.ranks.watchdog", "vidmae.ranks.health.node_facts", "vidmae.ranks.health.node_verdicts", "vidmae.runs.nodes.check_log",
    "vidmae.ranks.health.hang_report", "vidmae.ranks.health.stragglers", "vidmae.ranks.stack_file", "vidmae.runs.attempts", "vidmae.runs.cost", "vidmae.runs.gpus", "vidmae.runs.nodes.gpu_counter", "vidmae.runs.nodes.left_out", "vidmae.runs.nodes.usage", "vidmae.runs.nonfinite",
    "vidmae.runs.plan", "vidmae.runs.quarantine", "vidmae.runs.record", "vidmae.settings.command_line",
    "vidmae.settings.conv_sizes", "vidmae.settings.schedule", "vidmae.settings.sizes"}
PURE_OF_TORCH = {
    "vidmae.clips.clip_cost", "vidmae.clips.clips_flags", "vidmae.clips.views", "vidmae.evaluate.corruptions.conditions",
    "vidmae.evaluate.clustering", "vidmae.evaluate.dense.davis_layout", "vidmae.evaluate.dense.dense_sequence", "vidmae.evaluate.dense.dense_sets",
    "vidmae.evaluate.dense.dense_summary", "vidmae.evaluate.dense.dense_table", "vidmae.evaluate.dense.number_pickle",
    "vidmae.evaluate.dense.tapvid_layout", "vidmae.evaluate.feature_cache", "vidmae.evaluate.probes", "vidmae.evaluate.temporal.drawn_windows",
    "vidmae.evaluate.temporal.time_tasks", "vidmae.insight.sliding", "vidmae.insight.token_files",
    "vidmae.footage.history", "vidmae.footage.known.facts", "vidmae.footage.known.withdrawn", "vidmae.footage.manifest",
    "vidmae.footage.manifest_columns", "vidmae.footage.manifest_pages", "vidmae.footage.recordings",
    "vidmae.insight.embedding_files", "vidmae.insight.csv_rows", "vidmae.insight.footage_measures",
    "vidmae.insight.footage_survey", "vidmae.insight.paired", "vidmae.labels.label_map", "vidmae.labels.set_layout", "vidmae.labels.shot_list",
    "vidmae.labels.shots", "vidmae.labels.side_table", "vidmae.labels.sources", "vidmae.labels.splits",
    "vidmae.labels.synsets", "vidmae.labels.withdrawal",
    "vidmae.mixtures.ages", "vidmae.mixtures.children", "vidmae.mixtures.mixture", "vidmae.mixtures.mixture_order",
    "vidmae.model.formats.file_model", "vidmae.model.formats.keys", "vidmae.model.formats.layouts",
    "vidmae.model.formats.tensor_shapes", "vidmae.model.formats.weight_files", "vidmae.weights.finding", "vidmae.weights.hub", "vidmae.weights.released_weights",
    "vidmae.ranks.local_program", "vidmae.runs.accuracy", "vidmae.runs.predictions", "vidmae.runs.step_time",
    "vidmae.settings.programs.attention_config", "vidmae.settings.programs.dense_config",
    "vidmae.settings.clips_config", "vidmae.settings.config", "vidmae.settings.programs.embed_config",
    "vidmae.settings.programs.evaluation_config", "vidmae.settings.finetune_config", "vidmae.settings.programs.interpolate_config",
    "vidmae.insight.surprise.benchmark_layouts", "vidmae.insight.surprise.pair_list", "vidmae.settings.programs.surprise_config",
    "vidmae.settings.layers", "vidmae.settings.programs.temporal_config"}
CPU_LIMIT_S = 1.5
LAUNCHERS_ALONE = "launchers_alone"  # a folder of modules that are blocked for jobs and sweeps, and not for analysis
SCRIPTS = sorted(str(p.relative_to(ROOT)) for wing in ("jobs", "sweeps", "analysis") for p in (ROOT / wing).glob("*.py")
                 if p.name != "__init__.py")  # all that lies at the top of these wings is a command


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the wings, parsed once."""
    found = {}
    for wing in WINGS:
        for path in (ROOT / wing).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, `a.b` for `from a import b` too."""
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The innermost room, or the wing, that a module lies in."""
    return max((room for room in ROOMS if module.startswith(f"{room}.")), key=len, default=module.split(".")[0])


def test_rooms_import_along_the_arrows_only() -> None:
    everything = sources()
    modules = {name for name in everything if name not in ROOMS and name not in WINGS}
    wrong = []
    for name in modules:
        for target in imports(everything[name]):
            module = target if target in modules else target.rpartition(".")[0]
            if module not in modules or (room := room_of(module)) == room_of(name):
                continue
            allowed = ROOMS.get(room_of(name), set())
            if room not in allowed and (room.split(".")[0] == name.split(".")[0] or room.split(".")[0] not in allowed):
                wrong.append(f"{name} imports {module}")
    assert not wrong


def test_analysis_reads_records_and_no_models() -> None:
    wrong = [f"{name} imports {target}" for name, tree in sources().items() if name.startswith("analysis")
             for target in imports(tree) if target.startswith("vidmae.")
             and not any(f"{target}.".startswith(f"{module}.") for module in READ_BY_ANALYSIS)]
    assert not wrong


def test_a_room_says_what_lives_in_it_and_what_it_may_import() -> None:
    everything = sources()
    rooms = [name for name in everything if (ROOT / name.replace(".", "/")).is_dir() and name not in WINGS]
    with_code = [name for name in rooms if any(room_of(module) == name and module != name for module in everything)]
    assert set(with_code) == {room for room in ROOMS if room not in WINGS}
    for name in with_code:
        said = ast.get_docstring(everything[name]) or ""
        _, _, may = " ".join(said.split()).partition("May import ")
        allowed = {room.removeprefix(f"{name.split('.')[0]}.") for room in ROOMS[name]} or {"nothing of the other rooms"}
        assert set(re.split(", | and ", re.split(r"\.(?: |$)", may)[0])) == allowed, name
        assert len(said.splitlines()) <= 5, name


def test_a_folder_shows_few_entries() -> None:
    """Of the top of jobs/, sweeps/ and analysis/ the commands count: what a user types. Nobody looks at `__init__.py`."""
    folders = [ROOT / wing for wing in WINGS] + [p for wing in (*WINGS, "tests") for p in (ROOT / wing).rglob("*") if p.is_dir()]
    counts = {str(p.relative_to(ROOT)): sum(1 for q in p.iterdir() if q.name not in ("__pycache__", "__init__.py", "README.md")
                                             and not (q.is_dir() and str(p.relative_to(ROOT)) in WINGS[1:])) for p in folders
              if p.name != "__pycache__" and "earlier_runs" not in p.parts}
    assert {folder: n for folder, n in counts.items() if n > MOST_ENTRIES} == {}


def test_no_room_takes_the_name_of_a_library() -> None:
    """Python puts the folder of a script first: `jobs/inspect/` would be what numpy gets for `import inspect`. Modules that are
    built into Python, such as time, are found before any folder is looked at."""
    beside = {path.stem for wing in ("jobs", "sweeps", "analysis") for path in (ROOT / wing).iterdir()} - {"__init__", "__pycache__"}
    ours = {"jobs", "sweeps", "analysis", "vidmae", "tests"}
    assert not beside & (set(sys.stdlib_module_names) - set(sys.builtin_module_names) | set(metadata.packages_distributions()) - ours)


def test_no_two_modules_have_one_name() -> None:
    stems = Counter(name.rpartition(".")[2] for name in sources() if name not in ROOMS and name not in WINGS)
    assert {stem for stem, n in stems.items() if n > 1} == SAME_NAME


def test_heavy_libraries_have_one_import_site() -> None:
    wrong = []
    for name, tree in sources().items():
        for target in imports(tree):
            sites = SINGLE_SITES.get(target.split(".")[0])
            if sites is not None and not any(name == site or name.startswith(f"{site}.") for site in sites):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_launchers_import_no_heavy_library_at_the_top() -> None:
    heavy = ("torch", "deepspeed", "submitit", "decord", "av", "pandas", "pyarrow", "sklearn", "cv2", "skimage")
    wrong = [f"{name} imports {target}" for name, tree in sources().items()
             if name.startswith(("jobs", "sweeps")) or name in PURE_OF_TORCH
             for target in imports(tree, top_level=True) if target.split(".")[0] in heavy]
    assert not wrong


def test_records_and_numbers_need_the_standard_library_only() -> None:
    everything = sources()
    wrong = [f"{name} imports {target}" for name in STDLIB_ONLY for target in imports(everything[name])
             if target.split(".")[0] not in sys.stdlib_module_names and target.split(".")[0] not in WINGS]
    assert not wrong


def test_files_have_at_most_500_lines() -> None:
    tracked = [p for wing in (*WINGS, "tests") for p in (ROOT / wing).rglob("*.py")]
    assert [f"{p.relative_to(ROOT)}: {n}" for p in tracked if (n := len(p.read_text().splitlines())) > 500] == []


def test_what_the_quick_tests_leave_out_exists() -> None:
    assert [path for path in SLOW if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_puts_its_own_clone_first(script: str) -> None:
    """Else Python finds the wings where the environment's `-e .` points, maybe in another clone."""
    body = ast.parse((ROOT / script).read_text()).body
    wings = [i for i, node in enumerate(body) if isinstance(node, (ast.Import, ast.ImportFrom))
             and any(name.split(".")[0] in WINGS for name in imports(ast.Module([node], [])))]
    wanted = "if not __package__:\n    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))"
    if script.startswith("analysis/"):  # whose libraries are imported before its rooms
        wanted += "\n    import analysis"
    assert not wings or wanted in [ast.unparse(node) for node in body[:wings[0]]]


def test_the_root_of_the_clone_is_what_modules_take_for_it() -> None:
    """A program that is started with another folder in its path runs the code of another clone, or none."""
    found = {}
    for name, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOT" and "__file__" in ast.unparse(node.value):
                path = ROOT / f"{name.replace('.', '/')}.py"
                found[name] = eval(ast.unparse(node.value), {"Path": Path, "__file__": str(path)})
    assert len(found) >= 3 and set(found.values()) == {ROOT}, found


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_which_library_is_missing(script: str) -> None:
    """What says it comes with the wing (vidmae/start/uncaught.py), so nothing that may be missing is imported before."""
    body = ast.parse((ROOT / script).read_text()).body
    first = next((i for i, node in enumerate(body) if isinstance(node, ast.If)), 0)
    early = {name.split(".")[0] for node in body[:first] for name in imports(ast.Module([node], []))}
    assert early <= set(sys.stdlib_module_names)
    later = [name.split(".")[0] for node in body[first + 1:] for name in imports(ast.Module([node], []))]
    assert script.startswith("analysis/") or later[:1] in (["jobs"], []), "this library would give a traceback"


def test_ctrl_c_is_a_word_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        uncaught._hook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert ended.value.code == 130 and capsys.readouterr().err == "\ninterrupted\n"


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with a manifest, and an environment in which torch, deepspeed and the decoders cannot be imported."""
    folder = tmp_path_factory.mktemp("house")
    (folder / LAUNCHERS_ALONE).mkdir()
    for name in ("torch", "deepspeed", "decord", "av", f"{LAUNCHERS_ALONE}/pandas",
                 f"{LAUNCHERS_ALONE}/pyarrow", "sklearn"):
        (folder / f"{name}.py").write_text(f"raise ImportError('this command must not import {name} at its start')\n")
    write_manifest(folder / "manifests/demo.csv")
    write_labelled(folder / "manifests")
    return folder, {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": ""}


def cpu_seconds(args: list[str], folder: Path, env: dict[str, str]) -> tuple[float, str]:
    """CPU time of a call, or of the quicker of two (the first may compile) where one takes too long, and the output.

    Pandas, half a second, is blocked for jobs and sweeps and allowed for analysis.
    """
    if Path(args[0]).parent != ROOT / "analysis":
        env = {**env, "PYTHONPATH": f"{folder / LAUNCHERS_ALONE}{os.pathsep}{env['PYTHONPATH']}"}
    spent = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if spent[-1] < CPU_LIMIT_S:
            break
    return min(spent), done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_starts_at_once_and_without_torch(script: str, blocked: tuple[Path, dict[str, str]]) -> None:
    spent, out = cpu_seconds([str(ROOT / script), "--help"], *blocked)
    assert out.startswith("usage:") and f"python {script}" in out
    assert spent < CPU_LIMIT_S


@pytest.mark.parametrize("command", [["jobs/pretrain.py", "--recipe", "demo"],
                                     ["sweeps/fewshot.py", "--recipe", "finetune_demo", "--shots", "2,10"],
                                     ["sweeps/scaling.py", "--recipe", "demo", "--fractions", "1", "--shots", "2", "--fewshot",
                                      "--recipe finetune_demo --cpus-per-task 1"]])
@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_dry_run_starts_at_once_and_without_torch(cluster: str, command: list[str], blocked: tuple[Path, dict[str, str]],
                                                    ) -> None:
    folder, env = blocked
    script, *more = command
    args = [str(ROOT / script), *more, "--dry-run", "--cluster", cluster, "--gpus-per-node", "0", "--cpus-per-task", "1"]
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("sbatch", "srun", "sinfo"):  # a Slurm that never answers must not be waited for; this one refuses
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    spent, out = cpu_seconds(args, folder, {**env, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"})
    assert out.startswith("#!/bin/bash") and spent < CPU_LIMIT_S


@pytest.mark.parametrize(("script", "data", "more", "begins"), [
    ("jobs/interpolate.py", "--videos", ["--cluster", "local"], "#!/bin/bash"),
    ("jobs/embed.py", "--data", ["--cluster", "local"], "#!/bin/bash"),
    ("jobs/surprise.py", "--backgrounds", ["--scenes", "2", "--cluster", "local"], "#!/bin/bash"),
    ("jobs/evaluate.py", "--data", [], "weights:"), ("analysis/attention.py", "--videos", [], "weights:")])
def test_a_dry_run_of_a_program_starts_at_once_and_without_torch(script: str, data: str, more: list[str], begins: str,
                                                                 blocked: tuple[Path, dict[str, str]]) -> None:
    folder, env = blocked
    (folder / "say.pth").write_bytes(b"weights")
    args = [str(ROOT / script), "--weights", "say.pth", data, "demo", "--out", "results", "--dry-run", *more]
    spent, out = cpu_seconds(args, folder, env)
    assert out.startswith(begins) and spent < CPU_LIMIT_S
    assert not (folder / "results").exists()
