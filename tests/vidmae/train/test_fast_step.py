"""What makes a step fast or small: reading ahead, what a run chooses for its device, trial steps, profiles."""

import csv
import gzip
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.facilities import need
from tests.support.interruptions import differences, wait_for_step
from tests.support.runs import finish, make_manifest, make_run, start, train
from vidmae.clips.loader import Batch
from vidmae.model import compiled
from vidmae.ranks.dist import Ranks
from vidmae.ranks.kernels import NOT_DETERMINISTIC
from vidmae.runs import cost
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, read_json, write_json
from vidmae.settings.config import ModelConfig, PretrainConfig, TrainConfig
from vidmae.settings.keeping_config import RecoveryConfig
from vidmae.train import fitting
from vidmae.train.choices import compiles, keep_choice, read_choices
from vidmae.train.fitting import Trial, largest_that_fits, training_bytes
from vidmae.train.prefetch import Prefetcher
from vidmae.train.pretrain import Pretrainer
from vidmae.train.profiling import StepProfiler
from vidmae.train.trainer import train_to_end

CPU, GPU = torch.device("cpu"), torch.device("cuda")
STEPS = ["train.phases=[{duration: 20 steps, lr: 1.0e-3}]", "checkpoint.every_steps=5"]
LONG_S = 1500  # one rank compiles for 45 s on a quiet processor


def batches(count, *, broken_at=None):
    for i in range(count):
        if i == broken_at:
            raise OSError("the disk is gone")
        yield Batch(torch.full((1, 2), i), torch.zeros(1, 1), torch.tensor([i]), torch.zeros(1))


@pytest.mark.parametrize("ahead", [None, True])
def test_every_micro_batch_comes_once_and_in_order(ahead):
    prefetcher, seen = Prefetcher(batches(4), CPU, ahead=ahead), []
    for _ in range(4):
        batch, waited_s = prefetcher.next()
        seen.append(int(batch.rows))
        assert waited_s >= 0 and torch.equal(batch.clips, torch.full((1, 2), seen[-1]))
        prefetcher.fetch()
        prefetcher.fetch()
    assert seen == [0, 1, 2, 3]
    with pytest.raises(StopIteration):
        prefetcher.next()


def test_on_a_cpu_nothing_is_fetched_ahead():
    source = batches(3)
    prefetcher = Prefetcher(source, CPU)
    prefetcher.next()
    prefetcher.fetch()
    assert int(next(source).rows) == 1


def test_a_failure_of_the_loader_comes_when_its_batch_is_asked_for():
    prefetcher = Prefetcher(batches(3, broken_at=1), CPU, ahead=True)
    prefetcher.next()
    prefetcher.fetch()
    with pytest.raises(OSError, match="the disk is gone"):
        prefetcher.next()


@pytest.mark.parametrize(("memory", "best"), [(1, 1), (5, 4), (7, 6), (12, 12), (100, 12)])
def test_the_largest_share_that_fits_is_found_with_few_trials(memory, best):
    tried = []
    assert largest_that_fits(12, lambda n: tried.append(n) or n <= memory) == best
    assert tried == sorted(tried) and len([n for n in tried if n > memory]) <= 1
    with pytest.raises(ValueError, match="not even 1 clip"):
        largest_that_fits(12, lambda _: False)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_training_adds_is_what_the_cost_table_says(stage, precision):
    shape = ModelConfig().shape()
    train_config = TrainConfig(zero_stage=stage, precision=precision)
    number = 2 if precision == "bf16" and stage else 4
    whole = cost.state_gib(shape, zero_stage=stage, precision=precision, world_size=8) * cost.GIB
    count = cost.parameters(shape)
    trial_has = {0: 2 * number, 1: number, 2: number, 3: number / 8}[stage] * count  # weights; whole gradients in stage 0
    buckets = 2 * number * fitting.BUCKET_NUMBERS if stage else 0
    assert training_bytes(count, train_config, 8) == pytest.approx(whole - trial_has + buckets)
    of_features = ModelConfig(target="features").shape()
    count = cost.parameters(of_features)
    whole = cost.state_gib(of_features, zero_stage=stage, precision=precision, world_size=8) * cost.GIB
    trial_has = ({0: 2 * number, 1: number, 2: number, 3: number / 8}[stage] + number) * count  # and the teacher that computes
    assert training_bytes(count, train_config, 8, averages=True) == pytest.approx(whole - trial_has + buckets)


def test_a_trial_asks_the_device_and_leaves_nothing_behind(monkeypatch):
    asked, gib = [], 2**30
    for name, answer in {"mem_get_info": (8 * gib, 10 * gib), "memory_reserved": gib, "reset_peak_memory_stats": None,
                         "synchronize": None, "empty_cache": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, answer=answer: asked.append(name) or answer)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: clips * gib)
    model = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    trial = Trial(model, lambda n: (torch.ones(n, 3)[:1],), TrainConfig(precision="bf16", zero_stage=0), 1, CPU)
    found = []
    for clips in (1, 8, 9):  # 0.92 of 9 GiB are usable
        found.append(trial.fits(clips))
    assert found == [True, True, False] and all(p.grad is None for p in model.parameters())

    errors = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), RuntimeError("another")]

    def failing(*_):
        raise errors.pop(0)

    trial = Trial(model, failing, TrainConfig(precision="fp32"), 1, CPU)
    assert [trial.fits(1), trial.fits(1)] == [False, False]
    with pytest.raises(RuntimeError, match="another"):
        trial.fits(1)


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Whether a run compiles, and what it said."""
    run = RunFolder(tmp_path)

    def of(device, *, problem=None, **settings):
        said = []
        monkeypatch.setattr(compiled, "why_not", lambda _: problem)
        return compiles(run, TrainConfig(**settings), Ranks(0, 1, 0, device), said.append), " ".join(said)

    of.run = run
    return of


def test_auto_compiles_on_a_gpu_and_a_run_keeps_what_it_began_with(choose):
    assert choose(GPU) == (True, "") and read_choices(choose.run) == {"schema": 1, "compile": True}
    choose.run.metrics.write_text("")
    assert choose(CPU) == (True, "train.compile auto: true (what the run began with)")
    with pytest.raises(ValueError, match=r"as the run began, but no compiler .*--set train.compile=false"):
        choose(CPU, problem="no compiler")
    assert choose(GPU, compile=False) == (False, "") and not read_choices(choose.run)["compile"]
    assert choose(GPU) == (False, "train.compile auto: false (what the run began with)")


def test_a_run_that_began_eager_stays_eager_and_has_no_file(choose):
    assert choose(CPU) == (False, "") and not choose.run.choices.exists()
    choose.run.metrics.write_text("")
    assert choose(GPU) == (False, "train.compile auto: false (what the run began with)")


def test_auto_does_without_a_compiler_and_true_does_not(choose):
    assert choose(GPU, problem="no triton") == (False, "train.compile auto: false (no triton)")
    assert "ZeRO 3" in choose(GPU, zero_stage=3)[1]
    with pytest.raises(ValueError, match=r"train.compile is true .* but no C\+\+ compiler"):
        choose(CPU, compile=True, problem="no C++ compiler")
    with pytest.raises(ValueError, match=r"train.compile is graphs .* but this run is on a CPU, which has no CUDA graphs"):
        choose(CPU, compile="graphs")
    with pytest.raises(ValueError, match=r"but train\.zero_stage is 3"):
        write_json(choose.run.choices, {"compile": True})
        choose(GPU, zero_stage=3)


def test_choices_stand_beside_each_other(tmp_path):
    run = RunFolder(tmp_path)
    keep_choice(run, Ranks(0, 1, 0, GPU), micro_batch={"NVIDIA H100": 64})
    keep_choice(run, Ranks(0, 1, 0, GPU), attention="flash")
    assert read_choices(run) == {"schema": 1, "micro_batch": {"NVIDIA H100": 64}, "attention": "flash"}


@pytest.mark.parametrize(("error", "said"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), r"micro_batch is 12 .*such as 6 \(--set train.micro_batch=6, or auto"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), r"micro_batch is 12 .*torch says: CUDA error: CUBLAS"),
    (RuntimeError(f"histc_cuda {NOT_DETERMINISTIC}"), r"deterministic kernel: histc_cuda .*--set train.deterministic=false")])
def test_a_first_step_that_cannot_be_says_what_would_do(tmp_path, error, said):
    trainer = Pretrainer.__new__(Pretrainer)
    trainer.config = PretrainConfig(train=TrainConfig(deterministic=True))
    trainer.step, trainer.start, trainer.total_steps, trainer.compiled, trainer.writer = 0, 0, 2, False, None
    trainer.plan, trainer.profiler = SimpleNamespace(micro_batch=12), StepProfiler(RunFolder(tmp_path), 0, CPU)

    def failing_step(_):
        raise error

    trainer.train_step = failing_step
    with pytest.raises(ValueError, match=said):
        trainer.run_to_end()


def test_states_that_do_not_fit_are_told_before_the_first_step(tmp_path, monkeypatch):
    def make(_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried\nto")

    for asked in ("gpu_uuid", "device_name"):  # the GPU is a pretence
        monkeypatch.setattr(f"vidmae.train.trainer.{asked}", lambda _: "")
    config = PretrainConfig(train=TrainConfig(zero_stage=1), recovery=RecoveryConfig(checks="off"))
    with pytest.raises(ValueError, match=r"train.zero_stage 1 and train.offload none; .*--set train.offload=optimizer.* memory. Tried$") as told:
        train_to_end(RunFolder(tmp_path), config, Ranks(0, 1, 0, GPU), 0.0, make)
    assert told.type.__name__ == "FullMemoryError", "by which a sweep knows it (sweeps/grid/states.py)"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("clips"))


def test_offload_profile_and_deterministic_kernels_survive_a_stop(manifest, tmp_path):
    settings = ["train.zero_stage=2", "train.offload=optimizer", "train.deterministic=true", *STEPS]
    whole, cut = (make_run(tmp_path / name, manifest, *settings, f"log.profile_steps={steps}")
                  for name, steps in (("whole", 2), ("cut", 0)))
    codes, said = train(whole, world_size=2)
    assert codes == [0, 0] and "numerics: deterministic kernels" in said and "profile of 2 steps: " in said, said
    assert not whole.choices.exists()
    trace, table = whole.profile / "trace.json.gz", whole.profile / "operations.csv"
    assert [path.stat().st_mode & 0o777 for path in (whole.profile, trace, table)] == [0o700, 0o600, 0o600]
    assert any("addmm" in e.get("name", "") for e in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"])
    rows = list(csv.DictReader(table.open()))
    times = [float(row["cpu_ms_per_step"]) for row in rows]
    assert times == sorted(times, reverse=True) and 0 < sum(float(row["share_pct"]) for row in rows) <= 100.5
    assert not any(word in trace.read_bytes() + table.read_bytes() for word in (b".mp4", str(manifest.parent).encode()))

    ranks = start(cut, world_size=2)
    wait_for_step(cut, 3, alive=lambda: all(p.poll() is None for p in ranks))
    ranks[1].send_signal(signal.SIGTERM)
    assert finish(ranks)[0] == [75, 75]
    codes, said = train(cut, world_size=2)
    assert codes == [0, 0] and not differences(cut, whole) and not cut.profile.exists(), said


@pytest.fixture(scope="module")
def compiled_code(tmp_path_factory):
    """Where ranks keep what they compile."""
    return tmp_path_factory.mktemp("compiled") / "code"


@pytest.mark.slow  # half a minute to two for the C++ compiler, which builds two dozen kernels
def test_a_stop_while_the_first_step_compiles_loses_nothing(manifest, tmp_path, compiled_code):
    """Everything that the rank has started is signalled, too, as Slurm does."""
    need("compiler")
    run = make_run(tmp_path / "run", manifest, "train.zero_stage=1", "train.compile=true", *STEPS)
    env = {compiled.CACHE: str(compiled_code)}
    ranks = start(run, env=env)
    rank = ranks[0]
    while not any(compiled_code.rglob("*.cpp")):
        assert rank.poll() is None
        time.sleep(0.05)
    for pid in [rank.pid, *children_of(rank.pid)]:
        try:
            signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGUSR2)
        except ProcessLookupError:
            continue
    codes, said = finish(ranks, timeout_s=LONG_S)
    assert codes == [75] and "stopping after step 1: SIGUSR2" in said, said
    assert train(run, env=env, timeout_s=LONG_S)[0] == [0]


@pytest.mark.slow
def test_a_compiled_run_survives_stops_and_kills(manifest, tmp_path, compiled_code):
    """Both ranks begin with what the test before has compiled: two that compile at a time take as long as both together."""
    need("compiler")
    settings, env = ["train.zero_stage=1", "train.compile=true", *STEPS], {compiled.CACHE: str(compiled_code)}
    if (compiled_code / "rank0").exists():
        shutil.copytree(compiled_code / "rank0", compiled_code / "rank1")
    whole, eager, cut = (make_run(tmp_path / name, manifest, *settings) for name in ("whole", "eager", "cut"))
    eager.config.write_text(eager.config.read_text().replace("compile: true", "compile: false"))
    codes, said = train(whole, world_size=2, env=env, timeout_s=LONG_S)
    assert codes == [0, 0] and "compiles the model's" in said and read_json(whole.choices)["compile"], said
    assert sorted(p.name for p in compiled_code.iterdir()) == ["rank0", "rank1"]
    assert train(eager, world_size=2)[0] == [0, 0]
    losses = [[m["loss"] for m in read_metrics(run)] for run in (whole, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    cut.config.write_text(cut.config.read_text().replace("compile: true", "compile: auto"))
    write_json(cut.choices, {"schema": 1, "compile": True})  # it began on a GPU
    ranks = start(cut, world_size=2, env=env)
    wait_for_step(cut, 2, timeout_s=LONG_S, alive=lambda: all(p.poll() is None for p in ranks))
    ranks[1].send_signal(signal.SIGTERM)
    assert finish(ranks, timeout_s=LONG_S)[0] == [75, 75]
    ranks = start(cut, world_size=2, env=env)
    wait_for_step(cut, 7, timeout_s=LONG_S, alive=lambda: all(p.poll() is None for p in ranks))
    ranks[0].kill()
    finish(ranks, timeout_s=LONG_S)
    codes, said = train(cut, world_size=2, env=env, timeout_s=LONG_S)
    assert codes == [0, 0] and "train.compile auto: true (what the run began with)" in said
    assert not differences(cut, whole)


def children_of(pid):
    """All processes below one."""
    found = [int(p) for path in Path(f"/proc/{pid}/task").glob("*/children") for p in path.read_text().split()]
    return [*found, *(each for child in found for each in children_of(child))]
