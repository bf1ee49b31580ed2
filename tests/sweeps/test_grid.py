"""The cells of a sweep: what makes two of them the same, what they start from and learn from, and who runs when."""

from __future__ import annotations

import hashlib
import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from jobs.place.catalogue import Catalogue
from jobs.place.resources import Resources
from jobs.standing.runs import State
from sweeps.grid.batches import Classes, make_batches
from sweeps.grid.checkpoints import find_inits
from sweeps.grid.estimate import estimate, views_of
from sweeps.grid.grid import Cell, Init, LabelledSet, Settings, Subset, make_grid, parse_vary
from sweeps.grid.labelled import find_sets, find_subsets, one_form_each
from sweeps.grid.states import Standing, chosen, find_folders, kind_of
from sweeps.run.array_submission import merge
from sweeps.run.show import fitted, make_table
from sweeps.run.watch import Watch
from tests.support.labelled import write_labelled
from tests.support.launching import write_manifest
from vidmae.footage.manifest import ManifestError
from vidmae.labels.shots import ShotsError
from vidmae.runs.record import RunFolder, make_private_folder, write_json
from vidmae.settings.config import PretrainConfig, find_recipe
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, load, read_yaml, to_dict

TOYS = LabelledSet("toys", Path("/m/toys.csv"), Path("/m/toys-val.csv"), "c" * 64, "d" * 64, 36, 12, 3)
RUN = Init("s", "/runs/s/weights.safetensors", "run:1a2b3c4d",
           {"model": {"name": "vit_small_patch16", "img_size": 112}, "data": {"sampling_rate": 4, "target_fps": 25.0}})
SCRATCH = Init("scratch")
ONE = Resources("gpu", 1, 1, 1, 8, 0, 60)


def subset(shots: int = 2, seed: int = 0, content: str = "e") -> Subset:
    return Subset(TOYS, shots, seed, f"/m/toys.shots{shots}-seed{seed}.json" if shots else "", content * 64, 3 * shots or 36)


def settings(**changes: object) -> Settings:
    base = Settings([read_yaml(find_recipe("finetune_demo"))], (), [()], ["finetune"], None, None, "/runs/features")
    return replace(base, **changes)  # type: ignore[arg-type]


def grid(inits: list[Init] | None = None, subsets: list[Subset] | None = None, **changes: object) -> list[Cell]:
    return make_grid(inits or [RUN], subsets or [subset()], settings(**changes))


def test_a_cell_for_every_combination_and_its_name() -> None:
    cells = grid([RUN, SCRATCH], [subset(k, seed) for k in (2, 10, 0) for seed in (0, 1)], methods=["finetune", "knn"],
                 variants=parse_vary(["train.weight_decay=0.1,0.2"]))
    assert len(cells) == 2 * 6 * 2 * 2 == len({cell.signature for cell in cells})
    names = {cell.config.name for cell in cells}
    assert len(names) == 24 and {"s-toys-2shot-seed0-finetune", "scratch-toys-all-seed1-knn"} <= names
    record = next(c for c in cells if c.config.name == "s-toys-10shot-seed1-knn").record("fewshot")
    assert record == {"checkpoint": "s", "checkpoint_content": "run:1a2b3c4d", "data": "toys", "shots": 10, "seed": 1,
                      "method": "knn", "overrides": {"train.weight_decay": "0.1"}, "sweep": "fewshot"}


def test_the_signature_is_that_of_settings_and_contents() -> None:
    (cell,) = grid()
    signed = to_dict(cell.config, signed_only=True)
    signed.pop("name")
    data = hashlib.sha256(f"{'e' * 64} {'d' * 64}".encode()).hexdigest()
    text = json.dumps(["fewshot", signed, data], sort_keys=True, separators=(",", ":"))
    assert cell.signature == hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    elsewhere = replace(RUN, name="other", weights="/elsewhere/w.safetensors", after="17")
    assert grid([elsewhere])[0].signature == cell.signature, "neither names nor paths nor whether it is done count"
    moved = replace(subset(), path="/n/x.json", data=replace(TOYS, manifest=Path("/n/toys.csv")))
    assert grid(subsets=[moved])[0].signature == cell.signature
    changed = [grid([replace(RUN, content="run:99999999")]), grid(subsets=[subset(content="f")]), grid(subsets=[subset(seed=1)]),
               grid(subsets=[replace(subset(), data=replace(TOYS, val_content="0" * 64))]), grid(methods=["attentive"]),
               grid(overrides=("train.layer_decay=0.5",)), grid(select="holdout"), grid(views="2x3")]
    assert len({cells[0].signature for cells in changed} | {cell.signature}) == 1 + len(changed)


def test_a_checkpoint_wins_over_the_recipe_and_set_over_both() -> None:
    (cell,) = grid(overrides=("model.img_size=96",))
    model, data = cell.config.model, cell.config.data
    assert (model.name, model.img_size, data.sampling_rate, data.target_fps) == ("vit_small_patch16", 96, 4, 25.0)
    assert (data.manifest, data.val_manifest, data.subset, data.shots, cell.config.seed) == (
        "/m/toys.csv", "/m/toys-val.csv", "/m/toys.shots2-seed0.json", 2, 0)
    assert (cell.config.train.init, cell.config.train.init_content, cell.config.train.init_name) == (
        RUN.weights, "run:1a2b3c4d", "s")
    assert grid([SCRATCH])[0].config.model.name == "vit_nano_patch16", "the recipe's"
    (same,) = grid(variants=[(), ()])
    assert same.signature == grid()[0].signature, "what comes up twice is there once"


def test_methods_without_steps_keep_the_last_rule() -> None:
    cells = {cell.method: cell.config.select.rule for cell in grid(methods=["finetune", "knn", "linear"], select="val-best")}
    assert cells == {"finetune": "val-best", "knn": "last", "linear": "last"}


@pytest.mark.parametrize(("item", "said"), [("seed=3", "--seeds"), ("data.shots=3", "--shots"), ("train.init=a", "--checkpoints")])
def test_what_the_sweep_decides_cannot_be_set(item: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grid(overrides=(item,))
    with pytest.raises(ConfigError, match=said):
        grid(variants=[(item,)])


def test_what_a_probe_cannot_do_is_said_before_it_runs() -> None:
    with pytest.raises(ConfigError, match=r"probe\.token_grid"):
        grid(methods=["attentive"], overrides=("probe.token_grid=[9, 4, 4]",))


def test_vary() -> None:
    assert parse_vary([]) == [()]
    assert parse_vary(["a.b=1,2", "c=[0.1, 1],[0.2, 1]"]) == [
        ("a.b=1", "c=[0.1, 1]"), ("a.b=1", "c=[0.2, 1]"), ("a.b=2", "c=[0.1, 1]"), ("a.b=2", "c=[0.2, 1]")]
    for wrong in (["a"], ["a=1,"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError, match="--vary"):
            parse_vary(wrong)


def test_a_folder_is_found_also_where_its_checkpoint_had_another_name(tmp_path: Path) -> None:
    (cell,) = grid()
    assert find_folders([cell], tmp_path)[0].path.name == cell.run_id
    (tmp_path / f"old-name{cell.tail}").mkdir()
    (tmp_path / f"s-other-2shot-seed0-finetune-{cell.signature}").mkdir()
    assert find_folders([cell], tmp_path)[0].path.name == f"old-name-toys-2shot-seed0-finetune-{cell.signature}"
    (tmp_path / cell.run_id).mkdir()
    assert find_folders([cell], tmp_path)[0].path.name == cell.run_id


def standing(cell: Cell, kind: str = "new") -> Standing:
    return Standing(cell, RunFolder(Path("/runs") / cell.run_id), kind)


@pytest.mark.parametrize(("state", "code", "error", "kind"), [
    ("FAILED", 1, "ValueError", "failed"), ("TIMEOUT", 0, "", "timeout"), ("FAILED", 75, "", "timeout"),
    ("OUT_OF_MEMORY", 0, "", "oom"), ("FAILED", 1, "OutOfMemoryError", "oom"),
    ("FAILED", 2, "FullMemoryError", "oom"), ("CANCELLED", 0, "", "missing"),
    ("NODE_FAIL", 0, "", "missing"), ("ENDED", None, "", "missing"), ("COMPLETED", 0, "", "missing"),
    ("NEW", None, "", "new"), ("SUBMITTING", None, "", "new")])
def test_how_a_cell_ended(tmp_path: Path, state: str, code: int | None, error: str, kind: str) -> None:
    run = RunFolder(tmp_path)
    if error:
        write_json(run.failure, {"job_id": "12_3", "error": error})
    assert kind_of(State(run, "12_3", "slurm", state, False, source="sacct", exit_code=code)) == kind
    if error == "OutOfMemoryError":
        assert kind_of(State(run, "12_4", "slurm", state, False, source="sacct", exit_code=code)) == "failed", "another job's"


def test_what_a_call_submits() -> None:
    kinds = ["new", "active", "done", "failed", "timeout", "oom", "missing", "unknown"]
    found = [standing(cell, kind) for cell, kind in zip(grid(subsets=[subset(seed=i) for i in range(8)]), kinds, strict=True)]
    assert [s.kind for s in chosen(found, None)] == ["new"]
    assert [s.kind for s in chosen(found, "failed")] == ["new", "failed"]
    assert [s.kind for s in chosen(found, "all")] == ["new", "failed", "timeout", "oom", "missing"]


def test_one_array_per_resource_class_in_chunks_and_after_its_run() -> None:
    classes = Classes(replace(ONE, gpus_per_node=2, tasks_per_node=2), ONE, [], 0)
    later = replace(RUN, name="late", content="run:00000000", after="77")
    cells = grid([RUN, later], [subset(seed=i) for i in range(5)])
    batches = make_batches([standing(c) for c in cells], [], classes, 4)
    assert [(len(b.cells), b.after, b.waits_for) for b in batches] == [(4, "", ()), (1, "", ()), (4, "77", ()), (1, "77", ())]
    assert {s.cell.init.name for s in batches[2].cells} == {"late"}


def test_one_probe_extracts_what_the_others_find() -> None:
    classes = Classes(replace(ONE, gpus_per_node=2, tasks_per_node=2), ONE, [], 0)
    cells = grid([RUN, SCRATCH], [subset(k, seed) for k in (2, 10) for seed in (0, 1)], methods=["finetune", "knn", "attentive"])
    everything = [standing(c) for c in cells]
    batches = make_batches(everything, everything, classes, 1000)
    first, finetuned, rest = batches
    assert [(s.cell.init.name, s.cell.method, s.cell.subset.shots, s.cell.subset.seed) for s in first.cells] == [
        ("s", "knn", 10, 0), ("s", "attentive", 10, 0), ("scratch", "knn", 10, 0), ("scratch", "knn", 10, 1),
        ("scratch", "attentive", 10, 0), ("scratch", "attentive", 10, 1)], "random weights are others for every seed"
    assert [(len(b.cells), b.waits_for, b.resources.world_size) for b in batches] == [(6, (), 1), (8, (), 2), (10, (0,), 1)]
    done = [standing(s.cell, "done") if s in first.cells else s for s in everything]
    again = make_batches(chosen(done, None), done, classes, 1000)
    assert all(not b.waits_for for b in again) and sum(len(b.cells) for b in again) == 18, "the features are there"
    merged, before = merge([finetuned, replace(rest, waits_for=(2,)), first])
    assert before == 6 and merged.cells == (*first.cells, *finetuned.cells, *rest.cells)


def test_costs() -> None:
    cells = grid(subsets=[subset(2), subset(10)], methods=["finetune", "knn"], views="2x3", select="val-best")
    two, ten, knn, knn_again = estimate(cells)
    assert (two.steps, ten.steps) == (-(-12 * 6 // 10), 12 * 30 // 10) and knn.steps == 0
    per_clip = knn.flops / (6 + 12)
    looks = two.steps // -(-6 // 10)
    assert two.flops == pytest.approx((3 * 10 * two.steps + 12 * 6 + 12 * looks) * per_clip)
    assert knn_again.flops == 0, "the features are there by then"
    assert [views_of(v) for v in ("center", "random", "10x3", "1x1")] == [1, 1, 30, 1]


def test_labelled_sets_are_those_with_labels_and_a_validation_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no labelled data set"):
        find_sets([], Catalogue())
    write_labelled(tmp_path / "manifests")
    write_labelled(tmp_path / "elsewhere", "others")
    (tmp_path / "elsewhere/others-val.csv").rename(tmp_path / "elsewhere/moved.csv")
    (found,) = find_sets([], Catalogue())
    assert (found.name, found.classes, found.videos, found.val_videos) == ("toys", 3, 36, 12)
    assert find_sets([str(found.manifest)], Catalogue()) == [found]
    (tmp_path / "known.yaml").write_text("others: elsewhere/others.csv\n")
    assert [s.name for s in find_sets(["known.yaml"], Catalogue())] == ["toys"], "others has no validation set"
    with pytest.raises(ConfigError, match=r"others has labels and no validation set beside it.*others-val.*--labels folders"):
        find_sets(["known.yaml", "others"], Catalogue())
    write_manifest(tmp_path / "manifests/plain.csv")
    with pytest.raises(ConfigError, match=r"plain\.csv has no labels"):
        find_sets(["plain"], Catalogue())


def test_footage_that_is_there_in_two_forms_makes_cells_once() -> None:
    raw = LabelledSet("toys", Path("toys.csv"), Path("toys-val.csv"), "a", "b", 36, 12, 3)
    ready = replace(raw, name="toys-256", content="c", val_content="d", prepared=True, prepared_of=("a", "b"))
    other = replace(raw, name="others", content="e")
    assert one_form_each([raw, other]) == ([raw, other], [])
    assert one_form_each([other, ready]) == ([other, ready], [])
    kept, said = one_form_each([raw, ready, other])
    assert kept == [ready, other]
    assert said == ["toys-256 is the prepared form of toys and is taken in its place (--data toys takes the files)"]
    with pytest.raises(ConfigError, match=r"toys, toys-256, toys-512 are the same clips .*--data"):
        one_form_each([raw, ready, replace(ready, name="toys-512", content="f")])


def test_subsets_are_drawn_once_kept_and_verified(tmp_path: Path) -> None:
    manifest = write_labelled(tmp_path)
    (data,) = find_sets([str(manifest)], Catalogue())
    ask = {"listing": None, "allow_fewer": False, "write": True}
    dry = find_subsets([data], [2, 10, 0], [0, 1], **{**ask, "write": False})
    assert not list(tmp_path.glob("*.shots*")) and not list(tmp_path.glob("*.apart.json")), "a dry run writes nothing"
    made = find_subsets([data], [2, 10, 0], [0, 1], **ask)
    assert made == dry and sorted({(s.shots, s.clips) for s in made}) == [(0, 36), (2, 6), (10, 30)]
    assert len({s.content for s in made}) == 5 and all(Path(s.path).is_file() for s in made if s.shots)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert find_subsets([data], [2, 10, 0], [0, 1], **ask) == made
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    with pytest.raises(ShotsError, match="fewer than 13"):
        find_subsets([data], [13], [0], **ask)
    assert find_subsets([data], [13], [0], **{**ask, "allow_fewer": True})[0].clips == 36
    with pytest.raises(ShotsError, match="fewer than 13"):
        find_subsets([data], [13], [0], **ask)
    write_labelled(tmp_path, per_class=11)  # clips are gone
    (data,) = find_sets([str(manifest)], Catalogue())
    with pytest.raises(ShotsError, match="earlier state of"):
        find_subsets([data], [10], [0, 1], **ask)


def test_overlap_is_an_error_every_time(tmp_path: Path) -> None:
    manifest = write_labelled(tmp_path)
    for suffix in (".csv", ".json"):
        (tmp_path / f"toys-val{suffix}").write_bytes((tmp_path / f"toys{suffix}").read_bytes())
    (data,) = find_sets([str(manifest)], Catalogue())
    for _ in range(2):
        with pytest.raises(ManifestError, match="36 of 36 recordings"):
            find_subsets([data], [2], [0], listing=None, allow_fewer=False, write=True)


def test_a_list_names_the_clips_of_one_set(tmp_path: Path) -> None:
    manifest = write_labelled(tmp_path)
    (data,) = find_sets([str(manifest)], Catalogue())
    listing = tmp_path / "two.csv"
    rows = [line.split(",")[:2] for line in manifest.read_text().splitlines()[1:]]
    chosen_rows = [row for i, row in enumerate(rows) if i % 12 < 2]
    listing.write_text("".join(f"{path}, {label}\n" for path, label in chosen_rows))
    ask = {"listing": listing, "allow_fewer": False, "write": True}
    first, second = find_subsets([data], [2], [0, 7], **ask)
    assert (first.content, first.clips, second.seed) == (second.content, 6, 7) and first.path.endswith("shots2-list.json")
    with pytest.raises(ConfigError, match="one data set and one k"):
        find_subsets([data], [2, 10], [0], **ask)


def test_the_recipes_are_those_of_a_cell() -> None:
    paper, demo = (load(FinetuneConfig, find_recipe(name)) for name in ("finetune_vith14", "finetune_demo"))
    assert paper == FinetuneConfig(), "the defaults of the schema are the paper's"
    pretrained = load(PretrainConfig, find_recipe("demo"))
    assert demo.model.name == pretrained.model.name.removeprefix("mae_") and demo.train.resize_positions
    assert demo.model.img_size < pretrained.model.img_size


def test_the_live_table_counts_cells_and_shows_the_mean(tmp_path: Path) -> None:
    kinds = [("done", ""), ("done", ""), ("active", "RUNNING"), ("active", "PENDING"), ("failed", "FAILED")]
    found = []
    for cell, (kind, state) in zip(grid(subsets=[subset(seed=i) for i in range(5)]), kinds, strict=True):
        run = RunFolder(make_private_folder(tmp_path / cell.run_id))
        found.append(Standing(cell, run, kind, State(run, "1_0", "slurm", state, kind == "active")))
    write_json(found[0].run.result, {"top1_pct": 25.0})
    write_json(found[1].run.result, {"top1_pct": 31.26})
    watch = Watch(found, time.time() - 30, 0)
    header, line, total = watch.rows()
    assert dict(zip(header, line, strict=True)) == {
        "CHECKPOINT": "s", "DATA": "toys", "METHOD": "finetune", "SHOTS": "2", "DONE": "2", "RUN": "1", "WAIT": "1",
        "FAIL": "1", "MEAN TOP-1": "28.1 %", "LEFT": ""}
    assert total[-1] == "00:00:30" and watch.line() == "2/5 cells done, 1 running, 1 waiting, 1 failed, 00:00:30 left"
    found[1].run.result.write_text('{"top1_pct": NaN}')
    found[0].run.result.write_text('{"top1_pct": 2')
    assert watch.rows()[1][8] == "28.1 %", "each is read once"
    assert Watch(found, time.time() - 30, 0).rows()[1][8] == "-", "damaged results are for the tables to name"


WIDE = {  # tables with long names and large numbers, and how many columns of words they have
    3: [("DATA", "AMOUNT", "SUBSET", "SEED", "VIDEOS", "HOURS", "STEPS", "EPOCHS", "STATE", "COST", "CELLS", "DONE", "ACTIVE"),
        ("s", "0.001", "contiguous", "0", "11", "0.18", "232,000", "322,000.5", "missing, again", "1,234.5 GPU-h", "12", "3", "4"),
        ("all", "", "", "", "", "", "", "", "4 runs", "4,938.0 GPU-h", "48", "5", "6")],
    4: [("CHECKPOINT", "DATA", "METHOD", "SHOTS", "CELLS", "DONE", "ACTIVE", "ENDED", "SUBMIT", "STEPS", "COST"),
        ("s-vith14-of-a-very-long-name", "kinetics-200h", "finetune, evaluate.views=10x3", "10", "3", "0", "1", "2", "5", "1,020",
         "123.45 GPU-h"), ("all", "", "", "", "3", "0", "1", "2", "5", "", "123.46 GPU-h")]}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("words", WIDE)
def test_a_table_of_a_sweep_fits_the_terminal_and_no_number_is_cut(words: int, width: int) -> None:
    lines, out = WIDE[words], io.StringIO()
    Console(file=out, width=width).print(make_table(lines, words, width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    seen = text.split()
    assert all(word in seen for line in lines for cell in line[words:] for word in cell.split()), "headings and numbers are whole"
    blocks, widths = fitted(lines, words, width)
    assert [i for block in blocks for i in block[words:]] == list(range(words, len(lines[0])))
    assert len(blocks) == 1 or sum(widths) > width
    letters = "".join(line[: widths[0] - 2].strip() for line in text.splitlines()[1:])
    assert letters.startswith(lines[1][0]), "a name is folded, and not cut"


IMAGE = Init("image", "/w/image.pth", "f" * 64, {"model": {"name": "vit_nano_patch16", "img_size": 112, "num_frames": 1, "t_patch_size": 1}})


def test_an_image_model_takes_every_method_and_no_clip_of_several_frames() -> None:
    cells = {cell.method: cell for cell in grid([IMAGE], methods=["finetune", "linear", "knn", "attentive"])}
    assert {cell.config.model.num_frames for cell in cells.values()} == {1} and len(cells) == 4
    assert cells["attentive"].config.probe.token_grid == (1, 4, 4) and cells["finetune"].config.probe.token_grid == (8, 4, 4)
    assert cells["attentive"].origins["probe.token_grid"].startswith("checkpoint image")
    (chosen_grid,) = grid([IMAGE], methods=["attentive"], overrides=("probe.token_grid=[1, 2, 2]",))
    assert chosen_grid.config.probe.token_grid == (1, 2, 2)
    with pytest.raises(ConfigError, match=r"model\.num_frames is 16 \[from --set\], allowed with image: 1, .*--views frames16"):
        grid([IMAGE], overrides=("model.num_frames=16", "model.t_patch_size=2"))


def test_a_table_of_positions_is_for_clips_of_its_own_size() -> None:
    model = {"name": "vit_nano_patch16", "img_size": 112, "num_frames": 16}
    video = Init("video", "/w/video.pth", "f" * 64, {"model": model})
    strict = "train.resize_positions=false"
    with pytest.raises(ConfigError, match=r"model\.num_frames is 8 \[from --set\], allowed with video: 16, the frames"):
        grid([video], overrides=("model.num_frames=8", strict))
    with pytest.raises(ConfigError, match=r"model\.img_size is 96 \[from --set\], allowed with video: 112, .*train\.resize_positions=true"):
        grid([video], overrides=("model.img_size=96", strict))
    with pytest.raises(ConfigError, match=r"model\.img_size is 96 .* allowed with image: 112"):
        grid([IMAGE], overrides=("model.img_size=96", strict))
    other = ("model.num_frames=8", "model.img_size=96")
    assert grid([video], overrides=other)[0].config.train.resize_positions, "the recipe lets them be interpolated"
    no_table = replace(video, settings={"model": {**model, "positions": "rotary", "pool": "mean"}})
    for init in (no_table, replace(video, weights="")):
        (cell,) = grid([init], overrides=(*other, strict))
        assert (cell.config.model.num_frames, cell.config.model.img_size) == (8, 96)


def test_a_released_image_mae_brings_its_model(tmp_path: Path) -> None:
    shapes = {"pos_embed": (1, 50, 96), "patch_embed.proj.weight": (96, 3, 16, 16)} | {f"blocks.{i}.norm1.bias": (96,) for i in range(3)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "mae.safetensors")
    (init,) = find_inits([str(tmp_path / "mae.safetensors")], [], tmp_path / "runs")
    assert init.settings == IMAGE.settings
    (tmp_path / "say.pth").write_bytes(b"weights")
    found = find_inits([str(tmp_path / "mae.safetensors"), str(tmp_path / "say.pth"), "scratch"], [], tmp_path / "runs")
    assert [init.name for init in found] == ["mae", "say", "scratch-vit_nano_patch16", "scratch"] and found[1].settings is None
    shapes["blocks.3.norm1.bias"] = (96,)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "mae.safetensors")
    with pytest.raises(ConfigError, match=r"width 96 with 4 blocks.*--checkpoints"):
        find_inits([str(tmp_path / "mae.safetensors")], [], tmp_path / "runs")


def test_clusters_learn_from_no_clip_so_there_is_one_cell_for_all_shots() -> None:
    subsets = [subset(k, seed) for k in (2, 10, 0) for seed in (0, 1)]
    cells = grid([RUN], subsets, methods=["cluster", "knn"])
    clusters = [cell for cell in cells if cell.method == "cluster"]
    assert [(c.config.name, c.config.data.shots, c.config.data.subset, c.amount, c.config.seed) for c in clusters] == [
        ("s-toys-seed0-cluster", 0, "", 0, 0), ("s-toys-seed1-cluster", 0, "", 0, 1)]
    assert {cell.signature for cell in grid([RUN], [subset(50, 0, "f")], methods=["cluster"])} == {clusters[0].signature}
    assert clusters[0].group == ("s", "toys", "cluster", "none") and clusters[0].record("")["shots"] == 0
    knn = next(c for c in cells if c.method == "knn")
    assert clusters[0].shares == knn.shares, "they look at the same features"
    costs = dict(zip([c.method for c in cells], estimate(cells), strict=True))
    of_clusters, of_knn = (estimate([c for c in cells if c.method == m])[0].flops for m in ("cluster", "knn"))
    both = sum(e.flops for e in estimate([clusters[0], knn]))
    assert of_clusters == pytest.approx(of_knn * 12 / (6 + 12)) and both == pytest.approx(of_knn) and costs["cluster"].steps == 0
    (wide,) = grid(methods=["attentive"], overrides=("probe.views=2x3",))
    (one,) = grid(methods=["attentive"])
    assert estimate([wide])[0].flops == pytest.approx(6 * estimate([one])[0].flops) and wide.features != one.features


def test_settings_of_today_change_no_cell_of_before() -> None:
    (cell,) = grid(methods=["attentive"])
    assert not {"blocks", "heads", "lrs", "weight_decays", "views", "restarts"} & to_dict(cell.config, signed_only=True)["probe"].keys()
    (wide,) = grid(methods=["attentive"], overrides=("probe.blocks=4", "probe.lrs=[5e-3, 1e-3]"))
    assert to_dict(wide.config, signed_only=True)["probe"]["lrs"] == [5e-3, 1e-3] and wide.signature != cell.signature
