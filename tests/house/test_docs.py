"""The pages of the documentation say what is true: every command runs, every link, file, function, flag and setting exists.

Commands run in a folder that holds what they name (tests/support/site.py), with a Slurm that answers questions and takes no
job. Those that would start a job or load a model run with --dry-run; all others do their work, without the slow pictures.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import vidmae
from tests.support.facilities import BUILDERS
from tests.support.launching import ROOT
from tests.support.pages import PAGES, Command, anchors, commands, links, name_of, parts, rows, spans
from tests.support.site import make_site
from vidmae.settings.config import PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig

FRONT = PAGES[0]
SCRIPTS = sorted(str(path.relative_to(ROOT)) for wing in ("jobs", "sweeps", "analysis") for path in (ROOT / wing).glob("*.py")
                 if path.name != "__init__.py")
DRY = {"jobs/pretrain.py", "jobs/evaluate.py", "jobs/embed.py", "jobs/interpolate.py", "jobs/surprise.py", "sweeps/fewshot.py",
       "sweeps/objects.py", "sweeps/robustness.py", "sweeps/dense.py", "sweeps/scaling.py", "sweeps/pair.py",
       "sweeps/pretrain.py", "sweeps/probes.py", "analysis/attention.py"}
SHORTER = {**dict.fromkeys(DRY, "--dry-run"), "jobs/watch.py": "--once", "analysis/embeddings.py": "--no-pictures",
           **dict.fromkeys(("analysis/scaling.py", "analysis/robustness.py", "analysis/time.py", "analysis/footage.py"), "--no-figures")}
ENDS_WITH = {"analysis/collect.py": (0, 3), "manifest": (0, 3), "footage": (0, 3)}  # 3: results are incomplete, and not one readable video
VERBS = {"jobs/prepare.py": [["manifest"], ["check"], ["shots"], ["fraction"], ["withdraw"], ["footage"]],
         "jobs/weights.py": [["export"], ["push"]]}  # whose flags pages name
FOLDERS = {"analysis/scaling.py": "scaling", "manifest": "fresh", "footage": "apart"}
STANDS_FOR = {"FILE.pth": "say.pth", "OUT": "results/s-ssv2", "RUN": "runs/s-vith14-ssv2-10shot-seed0-finetune-*", "FOLDER": "data/headcam",
              "mysite": "mysite.yaml"}
NAMES_STAND_FOR = {"recipe": "demo"}  # --recipe NAME
KIT = ("tests/gpu/run.py", "tests/gpu/bundle.py")
MODULES = {"tests.golden.make_golden"}  # that pages start by name; --check is one of its flags
FOREIGN = {"--check", "--array", "--cpus-per-task", "--wrap", "--kill-on-bad-exit", "--signal", "--nv", "--bind", "--file", "--tag", "--env-host"}  # flags of srun, scancel, apptainer and podman
DOCUMENTED = commands()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def at_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(site)
    monkeypatch.setenv("PATH", f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    return site


def call(main: Any, argv: list[str]) -> tuple[int, str]:
    """Exit code of a command line, and all that it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(argv)
        except SystemExit as ended:
            code = ended.code
    return code or 0, out.getvalue()


def filled_in(words: list[str], here: Path) -> list[str]:
    """Words with files of the site for what stands for any name, and with patterns as a shell expands them."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        word = NAMES_STAND_FOR.get(before.lstrip("-"), word) if word == "NAME" else STANDS_FOR.get(word, word)
        word = f"{here}{word}" if word.startswith("/data/") else word
        found += sorted(str(path.relative_to(here)) for path in here.glob(word)) if "*" in word else [word]
    return found


def run(words: list[str], here: Path) -> tuple[int, str, tuple[int, ...]]:
    """A command of a wing in its folder: its exit code, what it printed, and the exit codes that it may have."""
    script, *argv = words
    kind = argv[0] if argv[:1] in (["manifest"], ["footage"]) else script
    here = here / FOLDERS.get(kind, "")
    argv = filled_in(argv, here) + ([SHORTER[script]] if script in SHORTER and not {"--dry-run", "--print-config"} & set(argv) else [])
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    if script == "jobs/demo.py":
        argv = ["--help"]
    os.chdir(here)  # `at_site` goes back
    return *call(module.main, argv), ENDS_WITH.get(kind, (0,))


@pytest.mark.parametrize("command", DOCUMENTED, ids=lambda command: command.name)
def test_a_command_runs(command: Command, at_site: Path) -> None:
    words = command.words
    if words[0] == "eval":
        words = shlex.split(re.fullmatch(r"\$\((.*)\)", words[1])[1])
    if words[0] == "python" and words[1] in SCRIPTS:
        code, said, allowed = run(words[1:], at_site)
        assert code in allowed and "Traceback" not in said, said
        assert not (at_site / "submitted").exists(), "a job was submitted"
    elif words[0] == "python" and words[1] == "tests/slurm/cluster.py":
        from tests.slurm import cluster
        code, said = call(cluster.main, [*words[2:], "--help"])  # the verb is looked at first
        assert code == 0, said
    elif words[0] in ("python", "python3") and words[1] in KIT:
        done = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr  # the flags before it are looked at first
    elif words[:2] == ["python", "-m"] and words[2] in MODULES:
        done = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[:3] == ["python", "-m", "pytest"]:
        paths = [word for word in words[3:] if "/" in word]
        assert all((ROOT / path).exists() for path in paths) and set(words[3:]) - set(paths) <= {"-m", "slow"}
    elif words[0] == "make":
        done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    elif words[0] == "bash":
        assert subprocess.run(["bash", "-n", words[1]], cwd=ROOT).returncode == 0
    elif words[1:2] == ["build"] and words[0] in BUILDERS:
        assert any((ROOT / word).is_file() for word in words[2:])  # tests/jobs/test_launch.py builds it
    elif words[:3] == ["pip", "install", "-r"] or words[0] == "cp":
        assert (ROOT / words[-1 if words[0] == "pip" else 1]).is_file()
    else:
        pytest.fail(f"nobody knows how to try {command.text!r}")


@pytest.mark.parametrize("script", sorted({c.words[1] for c in DOCUMENTED if c.words[0] == "python"} & set(SCRIPTS)))
def test_a_wrong_flag_would_be_noticed(script: str, at_site: Path) -> None:
    command = next(c for c in DOCUMENTED if c.words[:2] == ["python", script])
    code, said, allowed = run([*command.words[1:], "--no-such-flag"], at_site)
    assert code == 2 and code not in allowed and "--no-such-flag" in said


def test_every_command_has_a_page() -> None:
    shown = {c.words[1] for c in DOCUMENTED if c.words[0] == "python"}
    assert set(SCRIPTS) - shown == {"jobs/demo.py"}  # which is `make demo`


def test_the_front_page_is_short_and_leads_to_the_others() -> None:
    table = rows(FRONT, "I want to ...")
    assert len(FRONT.read_text().splitlines()) <= 110 and 15 <= len(table) <= 23
    targets = dict(re.findall(r"^\[(\w+)\]: (\S+)$", FRONT.read_text(), re.MULTILINE))
    for _, command, page in table:
        script = shlex.split(command.strip("`"))[1]
        assert script in (ROOT / targets[page.strip("[]")]).read_text(), f"{page} says nothing of {script}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_rooms_that_are_named_exist(page: Path) -> None:
    made = {"jobs/clusters/mysite.yaml", "vidmae/recipes/NAME.yaml"}
    named = [span for _, span in spans(page) if re.fullmatch(r"(?:vidmae|jobs|sweeps|analysis|tests|\.ci)/[\w./-]*", span)]
    assert [span for span in named if span not in made and not (ROOT / span).exists()] == []
    rooms = [span for _, span in spans(page) if re.fullmatch(r"\w+/", span)]
    assert [span for span in rooms if not (page.parent / span).is_dir() and span not in ("code/",)] == []


def test_functions_stand_where_the_page_says() -> None:
    page = ROOT / "vidmae/README.md"
    for heading in ("The way of a clip from file to loss", "The way of --nodes to sbatch"):
        table = rows(page, heading)
        assert len(table) >= 10
        for _, files, names in table:
            text = "\n".join((ROOT / file).read_text() for file in re.findall(r"`([^`]+)`", files))
            missing = [name for name in re.findall(r"`([^`]+)`", names) if not re.search(rf"\b(?:def|class) {name}\b", text)]
            assert not missing, files


def keys(config: Any, before: str = "") -> set[str]:
    found = set()
    for field in fields(config):
        value = getattr(config, field.name)
        found |= keys(value, f"{before}{field.name}.") if is_dataclass(value) else {f"{before}{field.name}"}
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_flags_and_settings_exist(page: Path) -> None:
    helps = [call(importlib.import_module(script.removesuffix(".py").replace("/", ".")).main, [*verb, "--help"])[1]
             for script in SCRIPTS if script != "jobs/demo.py"
             for verb in VERBS.get(script, [[]])]
    if page == ROOT / "tests/README.md":
        helps += [subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True).stdout for script in KIT]
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", "\n".join(helps))) | FOREIGN
    shown = [flag for _, span in spans(page) for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", span)]
    assert set(shown) - known == set()
    settings = keys(PretrainConfig()) | keys(FinetuneConfig())
    sections = "|".join(sorted({key.partition(".")[0] for key in settings if "." in key}))
    shown = [match for _, span in spans(page) for match in re.findall(rf"(?<![\w/.])(?:{sections})\.[a-z_]+\b(?!\.)", span)]
    assert set(shown) - settings == set()


def test_the_examples_of_the_library_fit_it() -> None:
    """They are not run, since they want a released file; names must exist, and calls must fit the functions."""
    blocks = ["\n".join(lines) for kind, _, lines in parts(ROOT / "vidmae/README.md") if kind == "fence"]
    assert len(blocks) == 2
    for tree in map(ast.parse, blocks):
        known = {alias.name: getattr(importlib.import_module(node.module), alias.name) for node in tree.body
                 if isinstance(node, ast.ImportFrom) and node.module.startswith("vidmae") for alias in node.names}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                 and node.func.id in known]
        assert known and calls
        for node in calls:
            inspect.signature(known[node.func.id]).bind(*node.args, **{keyword.arg: None for keyword in node.keywords})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_are_not_long(page: Path) -> None:
    assert [line for line in page.read_text().splitlines() if len(line) > 125] == []


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == vidmae.__version__ and len(cited["preferred-citation"]["authors"]) == 5


def test_no_merge_is_left_half_done() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    texts = [path for path in tracked if path.endswith((".md", ".py", ".yaml", ".toml", ".txt"))]
    assert texts and [path for path in texts if any(line.startswith(marks) for line in (ROOT / path).read_text().splitlines())] == []
