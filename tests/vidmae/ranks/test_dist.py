"""How a process finds its rank and its device."""

import subprocess

import pytest
import torch

from tests.support.facilities import need
from tests.support.ranks import run_ranks
from vidmae.ranks.dist import NoGpuError, RankError, Ranks, choose_device, first_host, rank_env

FULL = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "cn1", "MASTER_PORT": "29500"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_STEP_NODELIST": "cn[2-3]",
         "SLURM_JOB_ID": "41"}


def test_the_three_ways_to_be_started():
    assert rank_env({**FULL, **SLURM}) == FULL, "the launcher's variables come first"
    assert rank_env(SLURM) == {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "cn2",
                               "MASTER_PORT": "10041"}
    alone = rank_env({"PATH": "/bin"})
    assert (alone["RANK"], alone["WORLD_SIZE"]) == ("0", "1")
    assert rank_env({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "3"})["WORLD_SIZE"] == "1"


@pytest.mark.parametrize("missing", sorted(FULL))
def test_half_an_environment_is_an_error(missing):
    with pytest.raises(RankError, match=missing):
        rank_env({k: v for k, v in FULL.items() if k != missing})


@pytest.mark.parametrize("missing", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_half_a_slurm_environment_is_an_error(missing):
    with pytest.raises(RankError, match=f"4 tasks but {missing} missing: start the ranks with srun"):
        rank_env({k: v for k, v in SLURM.items() if k != missing})


def test_first_host_agrees_with_scontrol(tmp_path):
    lists = {"cn1": "cn1", "gpu[003-007,9],login1": "gpu003", "n01,n02": "n01", "rack-2-[7,9]": "rack-2-7"}
    assert {nodelist: first_host(nodelist) for nodelist in lists} == lists
    need("slurm")
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmctldHost=localhost\nNodeName=cn1\nPartitionName=p Nodes=ALL\n")
    for nodelist in lists:
        names = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, timeout=30,
                               check=True, env={"PATH": "/usr/bin:/bin", "SLURM_CONF": str(conf)})
        assert first_host(nodelist) == names.stdout.split()[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_granted_gpu_that_torch_cannot_see_is_an_error_not_the_cpu():
    assert choose_device("auto", {}, 0).type == "cpu"
    assert choose_device("cpu", {"SLURM_GPUS_ON_NODE": "2"}, 0).type == "cpu"
    with pytest.raises(NoGpuError, match=r"Slurm granted GPUs \(2\) but torch .* sees none"):
        choose_device("auto", {"SLURM_GPUS_ON_NODE": "2"}, 0)
    with pytest.raises(RankError, match=r"the device is cuda .*--device cpu"):
        choose_device("cuda", {}, 0)


def test_what_three_ranks_tell_each_other():
    found = run_ranks("tests.support.programs.agree", world_size=3)
    told = {"on_main": 40, "first": "of 1", "nobody": None, "joined": [[0, ""], 0, [2, "aa"], 2], "none": [], "all": True,
            "failed": "rank 0 cannot"}
    for rank, seen in enumerate(found):
        assert {key: seen[key] for key in told} == told
        assert seen["main_first"] == 40 + rank and (seen["called"], seen["called_first"]) == ((1, 2) if rank == 0 else (0, 1))


def test_one_rank_asks_nobody():
    alone = Ranks(0, 1, 0, torch.device("cpu"))  # in no process group
    assert alone.on_main(lambda: 3) == 3 and alone.first(None) is None and alone.first("why") == "why" and alone.joined((1, 2)) == [1, 2]
