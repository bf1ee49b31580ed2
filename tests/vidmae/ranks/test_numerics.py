"""Bits do not depend on where an array lies, in every process that computes."""

import os
import subprocess
import sys

import pytest

from tests.support.launching import ROOT
from vidmae.start.numerics import SETTING, VARIABLE

# what ranks, array tasks, local arrays, shards, evaluation and the demo's pictures start with
PROGRAMS = ("vidmae.train.pretrain", "vidmae.train.cell", "vidmae.train.probe_cell", "vidmae.evaluate.evaluation", "vidmae.insight.embed", "vidmae.insight.interpolation.interpolate",
            "vidmae.insight.surprise.surprise", "vidmae.insight.attention.token_attention", "vidmae.insight.thumbnails", "jobs.submit.launch", "jobs.submit.local_array")
SEEN_BY_TORCH = f"""
import importlib, os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get({VARIABLE!r}), flush=True)
            os._exit(0)  # what torch itself does is not asked here
sys.meta_path.insert(0, Finder())
importlib.import_module(sys.argv[1])
import torch
"""


def run(*args: str, **env: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != VARIABLE}
    done = subprocess.run([sys.executable, *args], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_sets_it_before_torch_is_loaded(program):
    assert run("-c", SEEN_BY_TORCH, program) == f"{SETTING}\n"


def test_a_setting_of_the_user_stays():
    assert run("-c", SEEN_BY_TORCH, "vidmae.train.pretrain", **{VARIABLE: "COMPATIBLE"}) == "COMPATIBLE\n"


def test_the_tests_compute_with_it():
    assert os.environ[VARIABLE] == SETTING


@pytest.mark.parametrize("threads", ["1", "2"])
def test_products_are_the_same_wherever_their_operands_lie(threads):
    assert run("-m", "tests.support.programs.alignment", threads) == ""


def test_it_is_the_setting_that_makes_them_so():
    """An empty value is none. Where this is not skipped, the test above is red once the setting is lost."""
    if not run("-m", "tests.support.programs.alignment", "1", **{VARIABLE: ""}):
        pytest.skip("this processor computes alike at every alignment without the setting, too")
    assert run("-m", "tests.support.programs.alignment", "1", **{VARIABLE: SETTING}) == ""
