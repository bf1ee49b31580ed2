"""One grammar: a flag of one name asks for one kind of thing in every command."""

from __future__ import annotations

import argparse
import runpy
from collections import defaultdict
from collections.abc import Iterator

import pytest

from jobs.place.console import commands

KINDS = {  # what a value is -> the words that help has for it
    "data": {"DATA", "NAME|PATH", "NAME|FILE", "NAME|FILE.csv", "NAME,NAME,...", "NAME|PATH,..."},
    "folder": {"FOLDER"}, "setting": {"KEY=VALUE", "model.KEY=VALUE"}, "number": {"N", "S"},
    "numbers": {"N,N,...", "K,K,...", "H,H,...", "F,F,..."}, "word": {"RULE", "saycam|babyview", "NAME", "VIEWS"},
}
TWO_KINDS = {
    "--out": "what is written, mostly a folder; of prepare.py manifest the csv, of report.py the page",
    "--part": "of prepare.py manifest I/N, a part of the files; of robustness.py how many conditions a cell has",
    "--hours": "hours of footage; of goodput.py of a simulated run",
    "--nodes": "of a job; goodput.py compares several", "--subset": "which recordings; scaling.py takes several kinds",
    "--runs": "the old word for --runs-dir; of goodput.py how many runs are simulated",
    "--image": "an image model; of pair.py its recipe",
    "--sets": "what is tested on as it is: of robustness.py manifests with a name, of dense.py layouts",
}
TWO_MEANINGS = {
    "--weights": "a file of weights, and for clean.py that those of finished runs may go, too",
    "--frames": "a switch, and for embeddings.py the manifest that has the frames: features have lost their videos",
    "--published": "which published rows stand in the tables, and for scaling.py that they are what is fitted",
}
SYNONYMS = {"--runs": "--runs-dir", "--ntasks-per-node": "--tasks-per-node", "--subset": "--classes"}
"""Old spellings and those of Slurm; help shows the second."""


def parsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from parsers(inner, f"{name} {verb}")


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, argparse.Action]]:
    """Every flag, and what it is in each command."""
    found: dict[str, dict[str, argparse.Action]] = defaultdict(dict)
    for name, script in commands().items():
        for command, parser in parsers(runpy.run_path(str(script), run_name="parsed")["make_parser"](), name):
            for action in parser._actions:
                for flag in action.option_strings:
                    found[flag][command] = action
    return found


def test_a_flag_is_a_switch_everywhere_or_nowhere(table: dict[str, dict[str, argparse.Action]]) -> None:
    takes = {flag: {command: action.nargs in (0, "?") for command, action in uses.items()} for flag, uses in table.items()}
    mixed = {flag for flag, uses in takes.items() if len(set(uses.values())) > 1}
    assert mixed == set(TWO_MEANINGS), {flag: takes[flag] for flag in mixed ^ set(TWO_MEANINGS)}


def kind_of(action: argparse.Action) -> str:
    """What the value of a flag is."""
    if action.nargs in (0, "?"):
        return "switch"
    named = [kind for kind, words in KINDS.items() if action.metavar in words]
    number = action.type in (int, float) and not action.metavar
    kind = named[0] if named else "number" if number else "word" if action.choices else str(action.metavar or "word")
    return f"{kind}s" if action.nargs in ("+", "*") else kind


def test_a_flag_takes_one_kind_of_value(table: dict[str, dict[str, argparse.Action]]) -> None:
    kinds = {flag: {command: kind_of(action) for command, action in uses.items()} for flag, uses in table.items()}
    mixed = {flag for flag, uses in kinds.items() if len(set(uses.values())) > 1}
    assert mixed == {*TWO_KINDS, *TWO_MEANINGS}, {flag: kinds[flag] for flag in mixed ^ {*TWO_KINDS, *TWO_MEANINGS}}


def test_a_flag_keeps_its_default_for_folders(table: dict[str, dict[str, argparse.Action]]) -> None:
    assert {str(action.default) for action in table["--runs-dir"].values()} == {"runs"}


def test_what_shows_clips_to_a_model_takes_the_same_flags(table: dict[str, dict[str, argparse.Action]]) -> None:
    for command in ("embed", "interpolate", "surprise", "evaluate", "attention"):
        for flag in ("--run", "--weights", "--device", "--workers", "--out", "--runs-dir", "--json"):
            assert command in table[flag], (command, flag)


def test_every_flag_is_explained(table: dict[str, dict[str, argparse.Action]]) -> None:
    assert not [(flag, command) for flag, uses in table.items() for command, action in uses.items() if not action.help]


def test_commands_know_no_abbreviations_and_are_short_about_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for name, script in commands().items():
        if name == "demo":  # it takes nothing, and loads nothing of the suite
            continue
        parser = runpy.run_path(str(script), run_name="parsed")["make_parser"]()
        for _, each in parsers(parser, name):
            assert each.allow_abbrev is False, name
        with pytest.raises(SystemExit) as end:
            parser.parse_args(["--no-such-flag"])
        assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1, name


def test_the_old_spellings_mean_the_same(table: dict[str, dict[str, argparse.Action]]) -> None:
    for old, new in SYNONYMS.items():
        shared = [command for command in table[old] if command in table[new]]
        assert shared and all(table[old][c] is table[new][c] for c in shared)
