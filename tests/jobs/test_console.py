"""The command `vidmae`: a name for every script, the scripts' own answers, and completion as argcomplete asks for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vidmae
from jobs.place import console
from tests.support.launching import ROOT

COMMANDS = console.commands()
SCRIPTS = {path for wing in ("jobs", "sweeps", "analysis") for path in (ROOT / wing).glob("*.py") if path.name != "__init__.py"}


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`vidmae ARGS`, as the entry point that pip writes calls it."""
    program = "import sys; from jobs.place.console import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *args], cwd=cwd, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **env}, stdin=subprocess.DEVNULL)


def complete(line: str, folder: Path) -> list[str]:
    """What a shell would offer: argcomplete answers on file descriptor 8."""
    answer = folder / "answer"
    program = "import sys; from jobs.place.console import main; sys.exit(main())"
    with answer.open("wb") as f:
        command = f'exec "$0" -c "$1" 8>&{f.fileno()}'
        done = subprocess.run(["bash", "-c", command, sys.executable, program], pass_fds=[f.fileno()], cwd=folder, timeout=60,
                              capture_output=True, stdin=subprocess.DEVNULL,
                              env={**os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n",
                                   "COMP_LINE": line, "COMP_POINT": str(len(line))})
    assert not done.stdout, "what is printed would be shown in the middle of what is typed"
    return answer.read_text().replace(" ", "").split("\n") if answer.stat().st_size else []


def test_every_script_has_one_name() -> None:
    assert set(COMMANDS.values()) == SCRIPTS and len(COMMANDS) == len(SCRIPTS)
    assert COMMANDS["scaling"] == ROOT / "sweeps/scaling.py" and COMMANDS["scaling-figures"] == ROOT / "analysis/scaling.py"
    assert COMMANDS["robustness"] == ROOT / "sweeps/robustness.py"
    assert COMMANDS["pretrain"] == ROOT / "jobs/pretrain.py" and COMMANDS["pretrain-grid"] == ROOT / "sweeps/pretrain.py"
    assert "completion" not in COMMANDS, "the name is taken by vidmae itself"


def test_alone_it_lists_all_commands_by_wing(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and done.stdout == run("--help", cwd=tmp_path).stdout
    assert re.findall(r"^  ([\w-]+) ", done.stdout, re.M) == list(COMMANDS)
    assert re.findall(r"^(\w+):", done.stdout, re.M)[:4] == ["usage", "jobs", "sweeps", "analysis"]
    assert re.search(r"^  report +Write one HTML page about a run: .*\.$", done.stdout, re.M)
    assert all(len(console.summary(path)) > 20 and ":." not in console.summary(path) for path in COMMANDS.values())


def test_the_version_has_one_source(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"vidmae {vidmae.__version__}\n")
    text = (ROOT / "pyproject.toml").read_text()
    assert 'vidmae = "jobs.place.console:main"' in text and 'dynamic.version = {attr = "vidmae.__version__"}' in text
    assert not re.search(r"^version *=", text, re.M) and f"## [{vidmae.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["prepare", "fewshot", "scaling", "scaling-figures"])
def test_help_is_that_of_the_script(name: str, tmp_path: Path) -> None:
    script = subprocess.run([sys.executable, str(COMMANDS[name]), "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    done = run(name, "--help", cwd=tmp_path)
    assert done.stdout == script.stdout and done.stdout.startswith("usage: ") and done.returncode == 0


def test_arguments_and_exit_codes_are_passed_through(tmp_path: Path) -> None:
    empty = run("status", "--json", cwd=tmp_path)
    assert empty.returncode == 0
    missing = run("logs", "no such run", cwd=tmp_path)
    assert missing.returncode == 2 and "no such run" in missing.stderr
    (tmp_path / "runs").mkdir()
    assert run("collect", "runs", "--out", "tables", cwd=tmp_path).returncode == subprocess.run(
        [sys.executable, str(ROOT / "analysis/collect.py"), "runs", "--out", "tables"], cwd=tmp_path, timeout=60).returncode


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    done = run("statsu", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: unknown command 'statsu', did you mean status? (vidmae lists the commands)\n"


def test_it_loads_no_heavy_library() -> None:
    program = ("import sys\nfrom jobs.place import console\nconsole.main([])\n"
               "print({'torch', 'numpy', 'pandas', 'argcomplete'} & set(sys.modules), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "set()\n"


@pytest.mark.parametrize(("line", "offered"), [
    ("vidmae sta", ["status"]), ("vidmae sc", ["scaling", "scaling-figures"]), ("vidmae --v", ["--version"]),
    ("vidmae pretrain --d", ["--data", "--dependency", "--dry-run"]), ("vidmae pretrain --cluster ", ["slurm", "local"]),
    ("vidmae prepare sh", ["shots"]), ("vidmae prepare shots --se", ["--seed"]), ("vidmae classes --o", ["--out"]),
    ("vidmae completion z", ["zsh"]), ("vidmae nope --", [])])
def test_completion(line: str, offered: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path) == offered


def test_all_commands_are_offered_and_all_can_complete_flags(tmp_path: Path) -> None:
    assert set(complete("vidmae ", tmp_path)) == {*COMMANDS, "completion"}
    for name in COMMANDS:
        parser = console.command_parser(name)
        assert parser is not None and "--help" in parser._option_string_actions


@pytest.mark.parametrize("shell", console.SHELLS)
def test_what_the_shell_evaluates(shell: str, tmp_path: Path) -> None:
    done = run("completion", shell, cwd=tmp_path)
    assert done.returncode == 0 and "vidmae" in done.stdout and "_ARGCOMPLETE" in done.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=done.stdout, text=True, timeout=60).returncode == 0
    assert run("completion", "cmd", cwd=tmp_path).returncode == 2
