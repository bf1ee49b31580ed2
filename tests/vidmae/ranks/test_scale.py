"""What grows with the ranks of a run, counted with threads as ranks (tests/bench/bench_scale.py does it for 1,024)."""

import pytest

from tests.bench.bench_scale import BAD_STEP, PHASES, simulate, write_videos
from tests.bench.peers.simulated_ranks import Account, exponent
from vidmae.runs.quarantine import read_quarantine
from vidmae.runs.record import RunFolder, read_json

FEW, MANY = 6, 24
EACH = {"start": (4, 4), "start from a checkpoint": (2, 3)}  # of a further rank: looks and opens of other ranks' files, or of its own
WRITES = {"start": 1, "save": 1}  # of a further rank: the file of its stacks, and its shard
LOG_2 = {FEW: 3, MANY: 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def accounts(folder) -> dict[int, Account]:
    manifest = write_videos(folder / "few.csv", 200)
    return {size: simulate(folder / f"run-{size}", manifest, size) for size in (FEW, MANY)}


@pytest.mark.parametrize("phase", PHASES)
def test_rounds_of_messages_grow_with_the_logarithm(accounts, phase):
    per_level = {size: account.of(phase, 0, "rounds") / LOG_2[size] for size, account in accounts.items()}
    assert per_level[FEW] == per_level[MANY] <= 20
    assert {account.of(phase, size - 1, "rounds") for size, account in accounts.items()} == {
        account.of(phase, 0, "rounds") for account in accounts.values()}, "no rank has more of them than another"


@pytest.mark.parametrize("phase", PHASES)
def test_a_further_rank_opens_a_handful_of_files_and_changes_none(accounts, phase):
    more = {what: (accounts[MANY].all(phase, what) - accounts[FEW].all(phase, what)) / (MANY - FEW)
            for what in ("looks", "opens", "files", "changes")}
    looks, opens = EACH.get(phase, (0, 0))
    assert more["looks"] <= looks and more["opens"] <= opens
    assert more["files"] == WRITES.get(phase, 0)
    assert more["changes"] <= (1 if phase == "start" else 0), "of several that find no folder for stacks each makes it"


def test_what_ranks_without_anything_to_say_send_is_8_bytes_each(accounts):
    for phase in ("step", "step with replaced videos"):
        few, many = (account.of(phase, 0, "sent_bytes") for account in accounts.values())
        assert many - few <= (0 if phase == "step" else 2 * 8 * (MANY - FEW) + 64)


def test_the_records_are_those_of_a_run_with_a_model(accounts, folder):
    run = RunFolder(folder / f"run-{MANY}")
    assert [step for step, _ in read_quarantine(run)] == [BAD_STEP] * 2
    marker = read_json(run.checkpoints / "step_00000003" / "COMPLETE") or {}
    assert marker["world_size"] == MANY and len(marker["files"]) == MANY + 1 + 2, "shards, the model, records"
    assert len((run.nonfinite.read_text()).split('"rank"')) == MANY + 1


def test_an_exponent_is_that_of_the_law():
    assert exponent([64, 256, 1024], [64, 256, 1024]) == pytest.approx(1)
    assert exponent([64, 1024], [64**2, 1024**2]) == pytest.approx(2) and exponent([64, 1024], [7, 7]) == 0
