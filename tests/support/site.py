"""A folder in which every command of the documentation finds what it names: data, runs, results, and a Slurm that answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.tables.survey.looking import features_of
from jobs.keeping.archive_file import write_archive
from jobs.keeping.packing import Wanted, pack
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT, write_program
from tests.support.tested import write_tested
from vidmae.footage.manifest import Check, Manifest, Row, read_all, write_manifest
from vidmae.insight.csv_rows import write_csv
from vidmae.insight.embedding_files import Embeddings, file_path, make_folder
from vidmae.insight.footage_measures import Moment
from vidmae.insight.footage_survey import COLUMNS as MOMENT_COLUMNS
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder, write_json

SINFO = "case \"$*\" in *%R*) echo gpu;; *) echo 'gpu*|up|2-00:00:00|1-16|30|64|515000|idle|gpu:a100:8';; esac"
SLURM = {  # program -> what it does
    "sinfo": SINFO, "scontrol": "echo 'ClusterName = here'; echo 'MaxArraySize = 1001'", "squeue": "", "sacct": "", "srun": "exit 1",
    "sbatch": "case \"$*\" in *--test-only*) echo 'sbatch: Job 7 to start at 2030-01-01T00:00:00' >&2;; *) echo >> SUBMITTED; exit 1;; esac",
    "scancel": "echo >> SUBMITTED; exit 1"}
SSV2 = tuple(line for line in (ROOT / "tests/vidmae/labels/ssv2_classes.txt").read_text().splitlines() if not line.startswith("#"))
HOURS, VIDEO_H = (1, 10, 100), 0.5


def make_site(here: Path) -> Path:
    """Fill a new folder."""
    for name, text in SLURM.items():
        write_program(here / "bin", name, text.replace("SUBMITTED", str(here / "submitted")))
    _data(here)
    _runs(here / "runs")
    _studies(here / "scaling/runs")
    _results(here / "results/s-ssv2")
    _results(here / "results/say-ssv2")
    packed = pack([RunFolder(here / "runs/s-vith14-edd1b7a1")], here / "runs", Wanted())
    write_archive(here / "s-vith14.tar.gz", packed.members, packed.links, time_s=packed.time_s)
    return here


def _data(here: Path) -> None:
    manifests = here / "manifests"
    for number, name in enumerate(("s", "s-val", "a-val", "say", "demo", "s-256", "kinetics-200h")):
        children = "SAY" if name == "say" else name[0].upper()
        rows = [Row(f"/videos/{name}/{child}_2013{i // 28 % 12 + 1:02d}{i % 28 + 1:02d}_0626_{i:03d}_segment1.mp4", "", 54_000, 30.0,
                    3600 * VIDEO_H, 1000, 64, 48, "h264", 0, 0, 0, f"{number + 1:04x}{ord(child):04x}{i:08x}", 1, "decord")
                for child in children for i in range(240)]
        write_manifest(manifests / f"{name}.csv", sorted(rows, key=lambda row: row.path), [], Check("decord", True))
    for suffix in ("csv", "json"):  # where its footage is prepared, all of which is missing
        (here / "apart/manifests").mkdir(parents=True, exist_ok=True)
        shutil.copy(manifests / f"s.{suffix}", here / f"apart/manifests/s.{suffix}")
    write_labelled(manifests, "ssv2", per_class=51, val_per_class=2, classes=SSV2)
    write_labelled(manifests, "kinetics", per_class=51)
    write_labelled(manifests, "imagenet", per_class=200, pictures=True)
    for name in ("say.pth", "ssv2-50shot.pth", "ssv2-10shot.pth", "clip.mp4"):
        (here / name).write_bytes(name.encode())
    shapes = {"patch_embed.proj.weight": [96, 3, 2, 16, 16], "pos_embed_spatial": [1, 4, 96], "pos_embed_temporal": [1, 8, 96],
              **{f"blocks.{i}.norm1.weight": [96] for i in range(3)}, "head.weight": [len(SSV2), 96]}
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}).encode()
    (here / "finetuned.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    shutil.copy(ROOT / "jobs/clusters/example.yaml", here / "mysite.yaml")
    (here / "list.txt").write_text("S_20130101_0626_000_segment1.mp4\n")
    (here / "possible-impossible.csv").write_text("possible,impossible,concept,set\nclip.mp4,say.pth,permanence,mine\n")
    for side in ("P", "IP"):
        video = here / f"data/grasp/level2/{side}_Collision/1.mp4"
        video.parent.mkdir(parents=True)
        video.write_bytes(side.encode())
    _features(manifests, here / "tables")
    fresh = here / "fresh"  # where manifests are made
    for name in ("headcam/S/a.mp4", "k700/val/dancing/b.mp4", "ssv2/1.webm", "imagenet/train/n01440764/c.JPEG"):
        path = fresh / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no video")
    (fresh / "synsets.txt").write_text("n01440764 tench, Tinca tinca\n")
    (fresh / "table.csv").write_text("file,child\na,S\n")
    (fresh / "something-something-v2-train.json").write_text(json.dumps([{"id": "1", "template": SSV2[0], "label": "x"}]))
    for name in ("ImageSets/2017/val.txt", *(f"{kind}/walk/0000{t}.{end}" for t in range(3) for kind, end in (
            ("JPEGImages/480p", "jpg"), ("Annotations/480p", "png")))):
        path = here / "data/DAVIS" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"walk")
    (here / "data/tapvid_davis.pkl").write_bytes(b"points")
    listed = here / "released/ssv2-10shot/train.csv"
    listed.parent.mkdir(parents=True)
    listed.write_text("".join(f"/videos/ssv2/{label}/{i}.mp4, {label}\n" for label in SSV2 for i in range(10)))
    log = here / "mae_st/models_finetuned/say_ssv2-10shot_log.txt"
    log.parent.mkdir(parents=True)
    epochs = [{"train_loss": 5.0 - epoch, "test_acc1": 10.0 + epoch, "test_acc5": 30.0 + epoch, "epoch": epoch} for epoch in range(3)]
    log.write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))


def _features(manifests: Path, tables: Path) -> None:
    """What analysis/footage.py keeps of the moments of recordings, as if it had looked at them."""
    for folder, names, sample in (("footage", ["s"], 20), ("s-say", ["s", "say"], 10), ("classes", ["ssv2-val"], 8)):
        for name in names:
            rows = read_all(manifests / f"{name}.csv")[1]
            path = features_of(manifests / f"{name}.csv", tables / folder, sample)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_csv(path, [asdict(Moment(i, row.content, 1.0, float(i % 40), 3.0, 2.0, 5.0, 100.0, 120.0, 40.0, f"{i * 2654435761 % 2**64:016x}"))
                             for i, row in enumerate(rows)], MOMENT_COLUMNS)


def _runs(runs: Path) -> None:
    """A pretraining run and two cells of it, from the folders of earlier code."""
    earlier = ROOT / "tests/earlier_runs/runs"
    content = json.loads((runs.parent / "manifests/s-val.json").read_text())["content_sha256"]
    trained = _copy(earlier / "done-edd1b7a1", runs / "s-vith14-edd1b7a1", name="s-vith14", content_sha256=content)
    (trained / "submit/17021/17021_0_log.out").write_text("trained\n")
    _copy(earlier / "done-edd1b7a1", runs / "s-image-vith14-edd1b7a2", name="s-image-vith14", signature="edd1b7a2")
    manifest = runs.parent / "manifests/s-val.csv"
    config = (trained / "config.yaml").read_text().replace("HERE/manifests/clips.csv", str(manifest))
    (trained / "config.yaml").write_text(config.replace("img_size: 16", "img_size: 64"))  # an image of 4 tokens hides none or all
    tested = Manifest.read(runs.parent / "manifests/ssv2-val.csv")
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(SSV2)), len(tested))
    predictions = from_probabilities(probabilities, tested.class_index, tested.content, sorted(SSV2))
    for seed, source in enumerate(sorted(earlier.glob("done-motion-*"))):
        name = f"s-vith14-ssv2-10shot-seed{seed}-finetune"
        cell = _copy(source, runs / f"{name}-{source.name[-8:]}", name=name)
        for file in (cell / "run.json", cell / "result.json"):
            record = json.loads(file.read_text())
            record["cell"] |= {"checkpoint": "s-vith14", "data": "ssv2", "shots": 10}
            write_json(file, record)
        predictions.write(cell / "predictions.npz")
        (cell / "weights.safetensors").write_bytes(b"weights")
        config = (cell / "config.yaml").read_text()
        (cell / "config.yaml").write_text(config.replace("HERE/manifests/motion-val.csv", str(runs.parent / "manifests/ssv2-val.csv")))
    write_tested(runs, "s-vith14-ssv2-10shot-{}-finetune", 0, dict.fromkeys(("clean", "fog:1", "fog:2"), predictions),
                 test_set="ssv2-val", imagenet_c=("fog",), group="weather")
    write_tested(runs, "s-vith14-ssv2-10shot-{}-finetune", 0, dict.fromkeys(("clean", "shuffled-frames:1", "frozen:1"), predictions),
                 test_set="ssv2-val", group="time")


def _copy(source: Path, target: Path, **record: Any) -> Path:
    shutil.copytree(source, target)
    write_json(target / "run.json", {**json.loads((source / "run.json").read_text()), **record})
    return target


def _studies(runs: Path) -> None:
    """Few-shot cells of models that were pretrained on some hours of two data sets."""
    for of in ("s", "say"):
        for hours in HOURS:
            for seed in (0, 1):
                name = f"{of}-{hours}h-seed{seed}"
                fraction = {"of": of, "of_content_sha256": of, "of_videos": 400, "of_hours": 200.0, "share": None, "hours": float(hours),
                            "has_hours": float(hours), "subset": "random", "seed": seed}
                write_json(_new(runs / name) / "run.json", {"schema": 1, "kind": "pretrain", "name": name, "signature": name,
                                                            "content_sha256": name, "fraction": fraction})
                (runs / name / "config.yaml").write_text(f"name: {name}\nseed: {seed}\n")
                cell = {"checkpoint": name, "checkpoint_content": f"run:{name}", "data": "ssv2", "shots": 10, "seed": 0,
                        "method": "finetune", "overrides": {}}
                few = _new(runs / f"few-{name}")
                write_json(few / "run.json", {"schema": 1, "kind": "fewshot", "name": f"few-{name}", "cell": cell})
                pct = 10 + 4 * np.log10(hours) + 0.3 * seed + (of == "say")
                write_json(few / "result.json", {"schema": 1, "kind": "fewshot", "cell": cell, "top1_pct": pct, "top5_pct": 2 * pct})


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _results(out: Path) -> None:
    """What jobs/embed.py leaves on Slurm: features, and the array that made them."""
    rng, label = np.random.default_rng(0), np.arange(60) % 6
    features = (rng.normal(size=(6, 8))[label] + rng.normal(size=(60, 8))).astype(np.float32)
    make_folder(out)
    Embeddings(np.arange(60).astype(np.uint64), label.astype(np.int32), features, features[:, ::-1]).write(file_path(out, 0, 1))
    write_json(out / "result.json", {"schema": 1, "kind": "embed", "data": "ssv2-val", "clips": 60, "files": 1, "unreadable": {},
                                     "classes": {str(i): SSV2[i] for i in range(6)}, "weights_content": "ab12"})
    write_json(out / "submitted.json", {"schema": 1, "submissions": [{"job_id": "77", "cluster": "slurm", "shards": 8}]})
