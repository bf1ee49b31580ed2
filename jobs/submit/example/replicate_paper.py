"""The replication at the paper's own size: the commands for a cluster, as `--scale paper` prints them. Pure.

Data: the recordings of child S (manifests/s.csv) to pretrain on, Something-Something-V2 to learn actions from and to be
tested on, ImageNet for objects. All of these are to be had by asking their owners, and are no part of this suite.
"""

from __future__ import annotations

SEEDS = range(5)
NODES = "--nodes 8 --partition gpu"


PAIR, SHUFFLED = "s-vith14,s-vith14-image-frames", "s-vith14-shuffled"
OF_SEED = """# seed SEED: the pair that saw the same frames, and the model of shuffled frames
python sweeps/pair.py --video pretrain_s_vith14 --match frames --set seed=SEED NODES RUNS
python jobs/pretrain.py --recipe pretrain_s_vith14 --name SHUFFLED --set seed=SEED --set data.clip=shuffled-frames NODES RUNS
# once they are done: few labels, objects, hidden frames
python sweeps/fewshot.py --data ssv2 --shots 10,50 --checkpoints PAIR,SHUFFLED,scratch --seeds SEED RUNS
python sweeps/objects.py --fractions 0.02 --checkpoints PAIR,SHUFFLED,scratch --seeds SEED --set keep_weights=true RUNS
python jobs/interpolate.py --run s-vith14 --image s-vith14-image-frames --videos ssv2-val --shards 8 --out results/SEED RUNS
# once the objects are done: corruptions, and the tables
python sweeps/robustness.py 's-vith14-imagenet-*' 's-vith14-image-frames-imagenet-*' --conditions imagenet-c,shape RUNS
python analysis/collect.py runs/seed-SEED --out tables/seed-SEED
python analysis/robustness.py runs/seed-SEED --out tables/seed-SEED"""


def of_seed(seed: int) -> list[str]:
    """The commands of a seed, in its own folder of runs; each group waits for the one before."""
    words = {"SHUFFLED": SHUFFLED, "PAIR": PAIR, "NODES": NODES, "RUNS": "--runs-dir runs/seed-SEED", "SEED": str(seed)}
    text = OF_SEED
    for word, meaning in words.items():
        text = text.replace(word, meaning)
    return text.splitlines()


COMMANDS: tuple[str, ...] = (
    "# data, once",
    "python jobs/prepare.py manifest /data/headcam/S --name s",
    "python jobs/prepare.py footage s",
    "python jobs/prepare.py manifest something-something-v2-train.json --root /data/ssv2 --name ssv2",
    "python jobs/prepare.py manifest something-something-v2-validation.json --root /data/ssv2 --name ssv2-val",
    "python jobs/prepare.py manifest /data/imagenet/train --images --labels folders --name imagenet",
    "python jobs/prepare.py manifest /data/imagenet/val --images --labels folders --name imagenet-val",
    "python jobs/prepare.py check ssv2 ssv2-val",
    "# more footage, better models: all amounts, their few-shot cells, tables and figures in one graph of jobs",
    "python sweeps/scaling.py --data s --fractions 0.001,0.01,0.1,1 --repeats 5 --labelled ssv2 --shots 10,50 --nodes 8",
    *(line for seed in SEEDS for line in of_seed(seed)),
)
"""A comment or a command a line. Add --dry-run to one to see its cost and its batch scripts."""
