from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.place.profiles import (
    CLUSTERS,
    ClusterProfile,
    environment_layer,
    find_site,
    flag_layers,
    parse_mem,
    read_site,
)
from jobs.place.resources import Resources, choose_partition, complete, local_resources
from jobs.place.scheduler.slurm import NodeShape, Partition
from vidmae.settings.layers import ConfigError, build

BIG = NodeShape(count=30, usable=30, cpus=64, mem_mib=512 * 1024, gpus=8, gpu_type="a100")
SMALL = NodeShape(count=4, usable=4, cpus=32, mem_mib=256 * 1024, gpus=4, gpu_type="v100")
PLAIN = NodeShape(count=10, usable=10, cpus=128, mem_mib=1024 * 1024, gpus=0)


def partition(*shapes: NodeShape, limit: int | None = 2880) -> Partition:
    return Partition("gpu", True, True, limit, None, shapes)


def fill(part: Partition | None, **values: Any) -> tuple[Resources, dict[str, str], list[str]]:
    origins: dict[str, str] = {}
    resources, said = complete(ClusterProfile(**values), origins, part)
    return resources, origins, said


def site(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


def test_a_whole_node_is_read_from_the_partition_and_said() -> None:
    r, origins, said = fill(partition(BIG), nodes=2)
    assert (r.gpus_per_node, r.tasks_per_node, r.cpus_per_task, r.mem_mib, r.time_min, r.world_size) == (8, 8, 8, 0, 2880, 16)
    assert origins["gpus_per_node"] == "read from partition gpu"
    assert "gpus_per_node 8: read from partition gpu" in said
    assert {line.split()[0] for line in said} >= {"partition", "tasks_per_node", "cpus_per_task", "mem_gib", "time"}


def test_part_of_a_node_gets_its_share() -> None:
    r, _, _ = fill(partition(BIG), gpus_per_node=2)
    assert (r.tasks_per_node, r.cpus_per_task, r.mem_mib) == (2, 8, 128 * 1024)


def test_cpu_jobs_have_one_task_per_node_unless_told() -> None:
    r, _, _ = fill(partition(PLAIN))
    assert (r.gpus_per_node, r.tasks_per_node, r.cpus_per_task, r.mem_mib) == (0, 1, 128, 0)
    r, _, _ = fill(partition(BIG), gpus_per_node=0, tasks_per_node=4, cpus_per_task=2)
    assert (r.tasks_per_node, r.cpus_per_task, r.mem_mib) == (4, 2, 64 * 1024)  # 8 of 64 CPUs, an eighth of the memory


def test_what_is_given_stays() -> None:
    r, origins, said = fill(partition(BIG), partition="gpu", gpus_per_node=8, tasks_per_node=8, cpus_per_task=6, mem_gib=100,
                            time="0-1")
    assert (r.cpus_per_task, r.mem_mib, r.time_min) == (6, 102400, 60)
    assert not origins and not said


def test_no_limit_becomes_a_day() -> None:
    r, _, said = fill(partition(BIG, limit=None))
    assert r.time_min == 1440
    assert any("partition gpu has no limit, so a day is assumed" in line for line in said)


def test_mixed_nodes_take_the_commonest_that_fits_and_say_so() -> None:
    r, _, said = fill(partition(SMALL, BIG))
    assert r.gpus_per_node == 8 and any("mixes 4 nodes with 4 GPUs (v100)" in line for line in said)


def test_without_slurm_the_numbers_must_be_given() -> None:
    with pytest.raises(ConfigError, match="--gpus-per-node must be given"):
        fill(None)
    r, _, _ = fill(None, partition="gpu", gpus_per_node=8, cpus_per_task=8)
    assert (r.world_size, r.time_min) == (8, 1440)


def test_partitions_by_name() -> None:
    other = Partition("debug", False, True, 10, None, (BIG,))
    assert choose_partition("", [other, partition(BIG)]).name == "gpu"
    with pytest.raises(ConfigError, match=r"no partition 'gup', did you mean gpu\?; there are: debug, gpu \(default\)"):
        choose_partition("gup", [other, partition(BIG)])
    with pytest.raises(ConfigError, match="no default partition; choose one with --partition: debug"):
        choose_partition("", [other])


@pytest.mark.parametrize(("flags", "message"), [
    ({"nodes": 0}, r"nodes is 0, allowed: 1 or more .*\[from --nodes\]"),
    ({"gpus_per_node": -1}, r"gpus_per_node is -1, allowed: 0 or more .*--gpus-per-node"),
    ({"tasks_per_node": 0}, "tasks_per_node is 0"),
    ({"gpus_per_node": 8, "tasks_per_node": 4}, "tasks_per_node is 4, allowed: 8, one task per GPU"),
    ({"time": "soon"}, r"time is 'soon'.*--time"),
    ({"partition": "a\nrm -rf"}, "allowed: text on one line"),
])
def test_flags_that_cannot_be(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ClusterProfile, flag_layers(flags, []))


def test_sbatch_options() -> None:
    profile, origins = build(ClusterProfile, flag_layers({}, ["--mail_type=END,FAIL", "exclusive"]))
    assert profile.sbatch == {"mail-type": "END,FAIL", "exclusive": ""} and origins["sbatch.exclusive"] == "--sbatch"
    for bad, message in ((["gpus-per-node=3"], "use --gpus-per-node"), (["output=/tmp/x"], "the launcher sets it"),
                         (["=3"], "not of the form KEY=VALUE"), (["a b=c"], "an option's long name"),
                         (["mail-user=a\n#SBATCH --uid=0"], "text on one line")):
        with pytest.raises(ConfigError, match=message):
            build(ClusterProfile, flag_layers({}, bad))


def test_a_profile_and_its_sections(tmp_path: Path) -> None:
    found = read_site(site(tmp_path, "partition: gpu\nnodes: 4\ntime: 1:30:00\nenv: {A: 08, B: yes}\nsbatch: {exclusive: }\n"
                                     "data:\n  s: m/s.csv\n  t: /abs/t\nconfig:\n  train:\n    micro_batch: 8\n"))
    profile, origins = build(ClusterProfile, found.layers)
    assert profile.time == "1:30:00"  # YAML alone reads 5400
    assert profile.env == {"A": "08", "B": "yes"} and profile.sbatch == {"exclusive": ""}
    assert origins["nodes"] == "profile site.yaml:2" and origins["time"] == "profile site.yaml:3"
    assert found.catalogue.entries == {"s": tmp_path / "m/s.csv", "t": Path("/abs/t")}
    (inner,) = found.config
    assert inner.values == {"train": {"micro_batch": 8}} and inner.where("train.micro_batch") == "profile site.yaml:11"


@pytest.mark.parametrize(("text", "message"), [
    ("partion: gpu", r"profile site.yaml:1: unknown key 'partion', did you mean partition"),
    ("nodes: none", "nodes is 'none', allowed: a whole number"),
    ("config: 3", r"profile site.yaml:1: config must hold"),
    ("env: {'A B': 1}", "a shell variable's name"),
    ("- a", "must hold `key: value` lines"),
])
def test_profiles_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_site(site(tmp_path, text))


def test_where_a_profile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIDMAE_PROFILE", raising=False)
    assert find_site(None, "nowhere").name == "" and find_site(None, None).name == ""
    assert find_site(None, "example").name == "example"  # the cluster's own name
    assert find_site("example", None).layers[0].values["partition"] == "gpu"
    monkeypatch.setenv("VIDMAE_PROFILE", str(site(tmp_path, "nodes: 3")))
    assert find_site(None, "example").name == "site"
    with pytest.raises(ConfigError, match=r"no cluster profile 'exmple', did you mean example\?"):
        find_site("exmple", None)


def test_every_field_is_explained_in_the_example() -> None:
    text = (CLUSTERS / "example.yaml").read_text()
    missing = [name for name in ClusterProfile.__dataclass_fields__ if f"{name}:" not in text]
    assert missing == ["dependency", "job_name"]  # of one job, not of a site


def test_users_sbatch_variables_are_weaker_than_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "mine")
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    layers = [environment_layer(), *read_site(site(tmp_path, "partition: site")).layers, *flag_layers({"qos": "high"}, [])]
    profile, origins = build(ClusterProfile, layers)
    assert (profile.partition, profile.account, profile.qos) == ("site", "lab", "high")
    assert origins["account"] == "SBATCH_* variable" and origins["qos"] == "--qos"


@pytest.mark.parametrize(("text", "gib"), [("0", 0), ("65536", 64), ("480G", 480), ("1.5T", 1536), ("512m", 0.5), ("2GiB", 2),
                                           ("1048576K", 1)])
def test_memory_in_sbatchs_form(text: str, gib: float) -> None:
    assert parse_mem(text) == pytest.approx(gib)


@pytest.mark.parametrize("text", ["", "G", "64Q", "-1", "1,5G"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory"):
        parse_mem(text)


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    r, said = local_resources(ClusterProfile(), {}, on_cpu=False)
    assert (r.gpus_per_node, r.tasks_per_node, r.time_min) == (2, 2, None)
    assert said[0] == "gpus_per_node 2: counted on this machine"
    r, _ = local_resources(ClusterProfile(tasks_per_node=3), {}, on_cpu=True)
    assert (r.gpus_per_node, r.tasks_per_node) == (0, 3)
    with pytest.raises(ConfigError, match=r"gpus_per_node is 3, allowed: 0 to 2 on this machine"):
        local_resources(ClusterProfile(gpus_per_node=3), {}, on_cpu=False)
    with pytest.raises(ConfigError, match="nodes is 2, allowed: 1 on this machine"):
        local_resources(ClusterProfile(nodes=2), {}, on_cpu=True)
