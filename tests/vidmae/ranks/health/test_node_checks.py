"""What nodes measure of themselves: folders, links, the driver (a stand-in for NVML), and three ranks that check each other."""

import os
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from jobs.submit.recover import judge
from tests.support.facilities import full_file_system, need
from tests.support.ranks import run_ranks
from vidmae.ranks.dist import NoGpuError
from vidmae.ranks.health import folder_checks, node_checks, node_measures
from vidmae.ranks.health.folder_checks import FolderChecks, folders_of, look_at
from vidmae.ranks.health.link_speed import rounds
from vidmae.ranks.health.node_facts import GpuFacts
from vidmae.ranks.health.node_measures import code_hash, memory_gb_s, product_tflops
from vidmae.ranks.health.nvml_reading import Nvml, driver_version
from vidmae.ranks.program import LostNodeError, _leaves_its_node, _record_failure, run_program
from vidmae.runs.nodes.check_log import checks_in_short, newest_checks
from vidmae.runs.nodes.left_out import leave_out_node, nodes_left_out
from vidmae.runs.record import RunFolder, read_json, write_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import build, parse_set, to_yaml


@pytest.mark.parametrize("nodes", range(1, 10))
def test_every_node_meets_both_neighbours_and_one_at_a_time(nodes):
    found = rounds(nodes)
    for edges in found:
        met = [node for edge in edges for node in edge]
        assert len(met) == len(set(met)), "a node exchanges with two at once"
    ring = {frozenset((i, (i + 1) % nodes)) for i in range(nodes)} if nodes > 1 else set()
    edges = [frozenset(edge) for edges in found for edge in edges]
    assert set(edges) == ring and len(edges) == len(ring)


def test_a_folder_is_written_to_and_left_as_it_was(tmp_path):
    found = look_at("run", tmp_path, size=2**20)
    assert not found.problem and found.write_mib_s > 0 and found.free_gib > 0 and list(tmp_path.iterdir()) == []
    assert look_at("tmp", tmp_path, size=folder_checks.LITTLE).write_mib_s is None
    assert look_at("run", tmp_path / "gone", size=1).problem == "No such file or directory"


def test_copies_of_this_user_count_as_room_and_the_folder_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("DISK", str(tmp_path))
    stage = folders_of(RunFolder(tmp_path), "$DISK/scratch")["stage"]
    before = look_at("stage", stage, size=1).free_gib
    (stage / "a.tar").write_bytes(bytes(2**24))
    assert look_at("stage", stage, size=1).free_gib >= before - 2**23 / 2**30 and stage.stat().st_mode & 0o077 == 0
    assert set(folders_of(RunFolder(tmp_path), "$NOWHERE/x")) <= {"run", "tmp", "shm"}


def test_copies_in_memory_count_as_room_and_one_that_goes_away_is_no_fault(tmp_path, monkeypatch):
    copies = tmp_path / f"vidmae-{os.getuid()}/cn1/run"
    copies.mkdir(parents=True)
    (copies / "a.pt").write_bytes(bytes(2**24))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    assert look_at("shm", tmp_path, size=1).free_gib == 1 + 2**24 / 2**30
    real, here = os.walk, tmp_path / "scratch"
    monkeypatch.setattr("os.walk", lambda where: [(folder, inner, [*names, "gone.tar"]) for folder, inner, names in real(where)])
    found = look_at("stage", here, size=1)
    assert not found.problem and found.free_gib == 1


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("mode", ["enforce", "warn"])
def test_a_gpu_that_fails_is_left_out_before_anything_else_is_asked_of_it(tmp_path, monkeypatch, mode, again):
    """CUDA answers nothing after an error, so the rank may not gather any more; a stand-in for the GPU fails for good."""
    def used(*_, **__):
        if failed:
            raise RuntimeError("CUDA error: unspecified launch failure")

    def product(_):
        if not again or len(speeds) == 1:
            failed.append(True)
        used()
        speeds.append(1.0)
        return 1.0

    def gather(value):
        used()
        return [value]

    failed, speeds, run, config = [], [], RunFolder(tmp_path), PretrainConfig()
    config = replace(config, recovery=replace(config.recovery, checks=mode))
    ranks = SimpleNamespace(rank=0, world_size=1, is_main=True, device=torch.device("cuda"), gather=gather, barrier=used,
                            from_main=lambda value: used() or value)
    monkeypatch.setenv("SLURMD_NODENAME", "cn3")
    monkeypatch.setattr(node_checks, "kernels", SimpleNamespace(set_numerics=lambda *_, **__: None))
    monkeypatch.setattr(node_checks, "judge", lambda found: [SimpleNamespace(speed=True)])
    monkeypatch.setattr(node_measures, "_before", lambda _: (None, None))
    monkeypatch.setattr(node_measures, "product_tflops", product)
    monkeypatch.setattr(node_measures, "memory_gb_s", lambda _: 1.0)
    monkeypatch.setattr(node_measures, "with_links", lambda ranks, nodes, facts: used() or facts)
    monkeypatch.setattr("torch.cuda.empty_cache", used)
    with pytest.raises(LostNodeError if mode == "enforce" else node_measures.FailingGpuError, match="unspecified launch failure"):
        node_checks.check_nodes(run, config, ranks)
    assert nodes_left_out(run) == ({"cn3": "rank 0: CUDA error: unspecified launch failure"} if mode == "enforce" else {})


def test_an_error_replaces_the_record_of_a_lost_rank_and_is_not_replaced(tmp_path):
    run = RunFolder(tmp_path)
    for error, wanted in ((LostNodeError("gone"), "gone"), (TypeError("the error"), "the error"), (LostNodeError("gone"), "the error"),
                          (TypeError("because of it"), "the error")):
        _record_failure(run, error, None)
        assert read_json(run.failure)["message"] == wanted
    write_json(run.failure, {"kind": "lost", "message": "of the start before"})
    _record_failure(run, ValueError("the configuration"), None)
    assert read_json(run.failure)["kind"] == "error"


def test_a_file_system_that_hangs_is_named_and_nobody_waits_for_it(tmp_path, monkeypatch):
    let_go = threading.Event()
    monkeypatch.setattr(folder_checks, "look_at", lambda what, folder, size: let_go.wait(30) and None)
    run, tmp = FolderChecks({"run": tmp_path, "tmp": tmp_path}, speed=False).facts(limit_s=0.1)
    let_go.set()
    assert run.problem == tmp.problem == "no answer within 0.1 s"


def test_speeds_are_of_the_right_size_and_draw_nothing():
    state = torch.get_rng_state()
    assert 1e-5 < product_tflops(torch.device("cpu")) < 100 and 0.01 < memory_gb_s(torch.device("cpu")) < 10_000
    assert torch.equal(torch.get_rng_state(), state)


def test_code_that_differs_in_a_byte_has_another_hash(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room/a.py").write_text("x = 1\n")
    (tmp_path / "b.txt").write_text("no code")
    first = code_hash(tmp_path)
    (tmp_path / "b.txt").unlink()
    assert code_hash(tmp_path) == first
    (tmp_path / "room/a.py").write_text("x = 2\n")
    assert code_hash(tmp_path) != first


class NotSupported(Exception):
    """Stands for pynvml.NVMLError."""


def nvml(**changed):
    """A stand-in for pynvml with the names and the forms of its answers, as its documentation has them."""
    def refused(*_):
        raise NotSupported("Not Supported")

    xids = iter(changed.pop("xids", ()))

    def wait(events, ms):
        assert events == "events" and ms < 1000
        for xid in xids:
            return SimpleNamespace(eventData=xid)
        raise NotSupported("Timeout")

    def handle(uuid):
        assert uuid == "GPU-123-abc"
        return "gpu"

    me = SimpleNamespace(pid=os.getpid(), usedGpuMemory=2**30)
    names = {
        "NVMLError": NotSupported, "nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetHandleByUUID": handle,
        "nvmlEventTypeXidCriticalError": 8, "nvmlEventSetCreate": lambda: "events", "nvmlEventSetWait_v2": wait,
        "nvmlDeviceRegisterEvents": lambda gpu, kind, events: None, "nvmlEventSetFree": lambda events: None,
        "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1, "NVML_VOLATILE_ECC": 0, "NVML_TEMPERATURE_GPU": 0, "NVML_NVLINK_MAX_LINKS": 18,
        "nvmlDeviceGetTotalEccErrors": lambda gpu, kind, since: 0, "nvmlDeviceGetRemappedRows": lambda gpu: [0, 0, 0, 0],
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 0, "nvmlDeviceGetCurrPcieLinkWidth": lambda gpu: 16,
        "nvmlDeviceGetNvLinkState": lambda gpu, link: 1, "nvmlDeviceGetTemperature": lambda gpu, kind: 61,
        "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [me]}
    return SimpleNamespace(**{name: refused if value is None else value for name, value in {**names, **changed}.items()}), me


@pytest.mark.parametrize(("changed", "wanted"), [
    ({}, {}),
    ({"xids": [79, 48]}, {"xids": (79, 48)}),
    ({"nvmlDeviceGetTotalEccErrors": lambda gpu, kind, since: 2}, {"ecc_errors": 2}),
    ({"nvmlDeviceGetRemappedRows": lambda gpu: [1, 1, 1, 0]}, {"rows": "pending"}),
    ({"nvmlDeviceGetRemappedRows": lambda gpu: [1, 1, 1, 1]}, {"rows": "failed"}),
    ({"nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 0x48}, {"slowed": ("hardware slowdown", "too hot")}),
    ({"nvmlDeviceGetNvLinkState": lambda gpu, link: int(link < 12)}, {"nvlinks": 12}),
    # a card without ECC, NVLink and events: what it cannot say is not known, and no error
    (dict.fromkeys(("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetNvLinkState",
                    "nvmlEventSetCreate", "nvmlDeviceGetCurrPcieLinkWidth")),
     {"ecc_errors": None, "nvlinks": None, "pcie_lanes": None})])
def test_what_the_driver_says(monkeypatch, changed, wanted):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**changed)[0])
    usual = {"others": 0, "ecc_errors": 0, "pcie_lanes": 16, "nvlinks": 18, "temperature_c": 61}
    assert Nvml("123-abc").read(GpuFacts("H100", 1.0)) == GpuFacts("H100", 1.0, **{**usual, **wanted})


def test_processes_of_others_are_counted_where_this_one_is_seen(monkeypatch):
    module, me = nvml()
    other, monitor = SimpleNamespace(pid=1, usedGpuMemory=2**33), SimpleNamespace(pid=2, usedGpuMemory=2**20)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    for there, wanted in (([me, other, monitor], 1), ([other, monitor], None)):  # without: a container numbers anew
        module.nvmlDeviceGetComputeRunningProcesses = lambda gpu, there=there: there
        assert Nvml("GPU-123-abc").read(GpuFacts("H100", 1.0)).others == wanted


def test_without_nvml_it_is_said_that_nothing_was_checked(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what Python does with a module that is not installed
    assert Nvml("123").read(GpuFacts("H100", 1.0)) == GpuFacts("H100", 1.0, nvml="not checked: no NVML (pip install nvidia-ml-py)")
    module, _ = nvml(nvmlInit=None)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert Nvml("123").missing == "not checked: NVML says Not Supported"
    (tmp_path / "version").write_text("570.86.15\n")
    assert (driver_version(tmp_path / "version"), driver_version(tmp_path / "none")) == ("570.86.15", "")


def test_three_nodes_check_each_other_and_the_one_with_the_full_disk_is_left_out(tmp_path, monkeypatch):
    """Three ranks over gloo, each a node of its own by name, in a job of Slurm's by its id."""
    need("tmpfs")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with full_file_system(tmp_path / "scratch/cn2"):
        said = run_ranks("tests.support.programs.health.checks", str(run.path), "enforce", f"{tmp_path}/scratch/$SLURMD_NODENAME", "7",
                         world_size=3)
    assert all(each["same"] for each in said), "random numbers, threads and the process group are as they were"
    assert len({each["raised"] for each in said}) == 1, said
    record, short, full = newest_checks(run), checks_in_short(run), "data.stage cannot be written: No space left on device"
    assert [node["node"] for node in record["nodes"]] == ["cn1", "cn2", "cn3"] and record["job_id"] == "7"
    assert all(rank["product_tflops"] > 0 and len(rank["across_gb_s"]) == 2 for rank in record["ranks"])
    assert f"cn2: {full}" in short["findings"]
    if {found["node"] for found in record["findings"]} == {"cn2"}:  # but for a machine so busy that another is named, too
        assert said[2]["raised"] == "LeaveError: leaving, so that the job is requeued without cn2"
        assert nodes_left_out(run, "7") == {"cn2": full} and (short["action"], short["left_out"]) == ("requeued", ["cn2"])


def test_off_means_off_though_yaml_reads_it_as_false():
    for given, wanted in (("off", "off"), ("'off'", "off"), ("enforce", "enforce")):
        assert build(PretrainConfig, parse_set([f"recovery.checks={given}"]))[0].recovery.checks == wanted


def test_nodes_are_left_out_for_a_time(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    leave_out_node(run, "cn1", "slow")
    monkeypatch.setattr("time.time", lambda: 9000.0)
    leave_out_node(run, "cn2", "wrong")
    assert nodes_left_out(run) == {"cn1": "slow", "cn2": "wrong"} and nodes_left_out(run, since=1001.0) == {"cn2": "wrong"}


def test_a_node_that_does_not_show_its_gpu_is_left_out_once(tmp_path, monkeypatch):
    """Its rank cannot join the others, so it acts alone; what a build of torch for CPUs lacks is no matter of the node."""
    run, error, config = RunFolder(tmp_path), NoGpuError("Slurm granted GPUs (8) but torch sees none"), PretrainConfig()
    enforce = replace(config, recovery=replace(config.recovery, checks="enforce"))
    monkeypatch.setenv("SLURMD_NODENAME", "cn3")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not _leaves_its_node(run, enforce, error)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert not _leaves_its_node(run, config, error) and _leaves_its_node(run, enforce, error)
    assert nodes_left_out(run, "7") == {"cn3": str(error)} and not _leaves_its_node(run, enforce, error), "it came again"


@pytest.mark.parametrize(("mode", "requeued"), [("enforce", True), ("warn", False)])
def test_a_job_whose_rank_lacks_its_gpu_is_requeued_where_the_checks_are_enforced(tmp_path, monkeypatch, mode, requeued):
    run, config = RunFolder(tmp_path), PretrainConfig()
    config = replace(config, recovery=replace(config.recovery, checks=mode, start_limit_s=0))
    run.config.write_text(to_yaml(config))

    def no_gpu(_):
        raise NoGpuError("Slurm granted GPUs (8) but torch sees none")

    monkeypatch.setattr("vidmae.ranks.dist.init", no_gpu)
    monkeypatch.setattr("vidmae.ranks.preempt.listen", lambda _: None)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    code = run_program(str(tmp_path), PretrainConfig, lambda *_: pytest.fail("it trains"))
    assert code == 1, "which ends the ranks that wait"
    assert judge(run, "7", code, restarts=0, max_requeues=20).requeue == requeued == bool(nodes_left_out(run, "7"))
