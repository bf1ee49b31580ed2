"""What an agent does where something about its start is wrong; restarts themselves are in tests/vidmae/train/test_recovery.py."""

import os
import sys
import time
from types import SimpleNamespace

import pytest

from vidmae.ranks.health import in_place
from vidmae.runs.record import RunFolder
from vidmae.settings.keeping_config import RecoveryConfig


def code_of(act):
    """Exit code of a process of its own that does something."""
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def rounds(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    found = in_place.Rounds(0, 2, limit_s=0.1)
    monkeypatch.setattr(in_place, "AGAIN_LIMIT_S", 0.1)

    def frozen(*_):
        time.sleep(30)

    found._store, found.number = SimpleNamespace(add=frozen, get=frozen, compare_set=frozen), 2
    return found


@pytest.mark.parametrize("call", [
    lambda rounds: rounds.num_nodes_waiting(), lambda rounds: rounds.next_rendezvous(), lambda rounds: rounds.why,
    lambda rounds: rounds.say_why("a")])
def test_an_agent_ends_where_the_first_one_is_frozen(rounds, call):
    began = time.monotonic()
    assert code_of(lambda: call(rounds)) == 1 and time.monotonic() - began < 10


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError, 1)])
def test_a_rank_that_is_interrupted_ends_with_a_code(monkeypatch, error, code):
    def main(_):
        raise error

    monkeypatch.setitem(sys.modules, "interrupted", SimpleNamespace(main=main))
    monkeypatch.setattr(in_place, "end_with_parent", int)
    assert code_of(lambda: in_place._be_rank("interrupted", "run", (), {})) == code


def test_an_import_that_fails_is_left_to_the_rank(monkeypatch, tmp_path):
    def missing(_):
        raise ImportError("no deepspeed")

    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name in in_place.OWN:
        monkeypatch.setenv(name, "")  # so that they are as before afterwards
    agent = SimpleNamespace(run=lambda: "result", code_of=lambda result: 5 if result == "result" else 0)
    monkeypatch.setitem(sys.modules, "without", SimpleNamespace(load_before_fork=missing))
    monkeypatch.setattr(in_place, "Agent", lambda *_: agent)
    assert in_place.watch(in_place.Watched("without", RunFolder(tmp_path), RecoveryConfig(), "cpu"), lambda _: False) == 5
