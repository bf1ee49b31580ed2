"""One grammar: a flag of one name asks for one kind of thing in every command."""

from __future__ import annotations

import argparse
import runpy
from collections import defaultdict
from collections.abc import Iterator

import pytest

from jobs.place.console import commands

TWO_MEANINGS = {
    "--frames": "a switch, and for embeddings.py the manifest that has the frames: features have lost their videos",
    "--published": "which published rows stand in the tables, and for scaling.py that they are what is fitted",
}
SYNONYMS = {"--runs": "--runs-dir", "--ntasks-per-node": "--tasks-per-node"}
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


def test_a_flag_keeps_its_default_for_folders(table: dict[str, dict[str, argparse.Action]]) -> None:
    assert {str(action.default) for action in table["--runs-dir"].values()} == {"runs"}


def test_what_shows_clips_to_a_model_takes_the_same_flags(table: dict[str, dict[str, argparse.Action]]) -> None:
    for command in ("embed", "interpolate", "evaluate", "attention"):
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
