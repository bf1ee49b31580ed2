"""The verdicts of a replication: each of them can come out, and the intervals hold the truth as often as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.page.replication.claims import CLAIMS, CONFIRMED, CONTRADICTED, UNDECIDED, Part, verdict_of, verdict_of_all
from analysis.page.replication.evidence import Evidence, SeedFound, read_evidence
from analysis.page.replication.two_level import averaged, effect_of
from analysis.page.replication.verdicts import judge, main
from jobs.submit.example.replicate_asked import claims_sha256
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder, read_json, write_json

RECORD = {"scale": "tiny", "seeds": [0, 1, 2, 3], "tasks": {"actions": "actions", "motion": "motion", "pictures": "digits"},
          "amounts": {"part0.1": 6.0, "video": 60.0}, "steps": [{"name": "pair", "claims": ["labels", "fill"], "wall_s": 9.0, "cpu_s": 60.0},
                                                              {"name": "cells", "claims": ["labels"], "wall_s": 9.0, "cpu_s": 30.0}],
          "wall_s": 100.0, "machine": "2 cores", "date": "1 May 2030", "commit": "abc", "facts": {"Films": "three"}, "commands": ["python x"]}
CLIPS, CLASSES = 240, 10


@pytest.mark.parametrize(("of_seeds", "of_clips", "rest"), [(3.0, 0.0, 10.0), (0.0, 30.0, 10.0), (4.0, 25.0, 30.0), (0.0, 0.0, 20.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(of_seeds: float, of_clips: float, rest: float) -> None:
    rng, truth, draws, seeds, clips = np.random.default_rng(7), 1.5, 1000, 5, 60
    held = 0
    for _ in range(draws):
        apart = (truth + of_seeds * rng.standard_normal((seeds, 1)) + of_clips * rng.standard_normal((1, clips))
                 + rest * rng.standard_normal((seeds, clips)))
        found = effect_of(apart)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / draws <= 0.97


@pytest.mark.parametrize("one", [False, True])
def test_clips_of_one_scene_count_once(one: bool) -> None:
    """Ten clips of each scene share how hard it is; intervals over clips would miss the truth more often than they say."""
    rng, truth, draws, seeds, scenes, kinds = np.random.default_rng(5), 1.5, 1000, 5, 20, 10
    unit, held = np.tile(np.arange(scenes), kinds), 0
    for _ in range(draws):
        hard, ours = 15 * rng.standard_normal(scenes), 3 * rng.standard_normal((seeds, 1))
        apart = truth + ours + hard[unit] + 5 * rng.standard_normal((seeds, scenes))[:, unit] + 30 * rng.standard_normal((seeds, len(unit)))
        found = effect_of(averaged(apart, unit) if one else apart)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / draws <= 0.97 if one else held / draws < 0.85


def test_units_count_alike_and_too_few_have_no_interval() -> None:
    apart, unit = np.array([[1.0, 2.0, 6.0, 8.0], [0.0, 0.0, 3.0, 1.0]]), np.array([7, 7, 7, 2])
    assert averaged(apart, unit).tolist() == [[8.0, 3.0], [1.0, 1.0]]
    assert np.isnan(effect_of(averaged(np.ones((4, 50)), np.arange(50) % 5)).low)


def test_intervals_of_right_and_wrong_hold_the_truth_too() -> None:
    """Differences are -1, 0 and 1: each model is right where what it knows, the clip and chance come together."""
    rng, draws, held, seeds, clips = np.random.default_rng(11), 1000, 0, 5, 120

    def apart(seeds: int, clips: int) -> np.ndarray:
        hard = rng.standard_normal((1, clips))
        right = [rng.standard_normal((seeds, clips)) + 0.15 * rng.standard_normal((seeds, 1)) + gain + hard + rng.standard_normal((1, clips)) > 0
                 for gain in (0.5, 0.0)]
        return 100.0 * (right[0].astype(float) - right[1])

    truth = float(np.mean([apart(40, 2000).mean() for _ in range(10)]))
    for _ in range(draws):
        found = effect_of(apart(seeds, clips))
        held += found.low <= truth <= found.high
    assert 0.93 <= held / draws <= 0.97


def test_one_level_alone_would_claim_too_much() -> None:
    """An interval over clips alone, of the mean over seeds, misses the truth often where seeds differ; this one does not."""
    rng, missed = np.random.default_rng(3), np.zeros(2)
    for _ in range(300):
        apart = 5 * rng.standard_normal((4, 1)) + 10 * rng.standard_normal((4, 100))
        found, of_clips = effect_of(apart), apart.mean(axis=0)
        missed += [abs(of_clips.mean()) > 1.98 * of_clips.std(ddof=1) / 10, not found.low <= 0 <= found.high]
    assert missed[0] > 100 > 30 > missed[1]


def test_what_cannot_have_an_interval_has_none_and_what_never_varies_is_not_certain() -> None:
    assert np.isnan(effect_of(np.ones((2, 50))).low) and np.isnan(effect_of(np.ones((5, 5))).high)
    found = effect_of(np.zeros((4, 50)), least=0.5)
    assert found.value == 0 and found.half_width == pytest.approx(3.182 * 0.5, rel=1e-3)  # Student's t, 3 degrees of freedom
    with pytest.raises(ValueError, match="1 of them not finite"):
        effect_of(np.array([[0.0, np.nan], [1.0, 1.0]]))


@pytest.mark.parametrize(("low", "high", "alike", "expected"), [
    (2.1, 9, False, CONFIRMED), (1.9, 9, False, UNDECIDED), (-5, 1.9, False, CONTRADICTED), (-5, -3, False, CONTRADICTED),
    (np.nan, np.nan, False, UNDECIDED), (-1.9, 1.9, True, CONFIRMED), (-1, 2.5, True, UNDECIDED), (2.1, 8, True, CONTRADICTED),
    (-8, -2.1, True, CONTRADICTED), (-9, 9, True, UNDECIDED)])
def test_what_an_interval_says(low: float, high: float, alike: bool, expected: str) -> None:
    assert verdict_of(Part("", "actions", "video", "scratch", 2.0, alike=alike), low, high) == expected


def test_a_claim_needs_all_of_its_parts() -> None:
    assert verdict_of_all([CONFIRMED, CONFIRMED]) == CONFIRMED
    assert verdict_of_all([CONFIRMED, UNDECIDED]) == UNDECIDED
    assert verdict_of_all([CONFIRMED, CONTRADICTED, UNDECIDED]) == CONTRADICTED
    assert verdict_of_all([]) == UNDECIDED
    assert [claim.key for claim in CLAIMS if not claim.control] == ["labels", "footage", "fill", "robust"]


def drawn(accuracies: dict[tuple[str, str], float], *, seeds: int = 4, clips: int = CLIPS, decibel: float = 0.0) -> Evidence:
    """Seeds in which every model is right with a given probability."""
    rng, found = np.random.default_rng(0), []
    names = pd.Index(np.arange(clips, dtype=np.uint64))
    for number in range(seeds):
        right = {key: pd.Series((rng.random(clips) < share).astype(float), index=names) for key, share in accuracies.items()}
        filled = {"hold": pd.Series(rng.normal(20, 3, clips), index=names)}
        filled["model"] = filled["hold"] + rng.normal(decibel, 1, clips)
        found.append(SeedFound(number, right, filled, {task: CLASSES for _, task in accuracies}))
    return Evidence(RECORD, found)


def world(scratch: float, part: float, shuffled: float, image: float, still: float) -> dict[tuple[str, str], float]:
    return {("scratch", "corrupted"): 0.3, ("scratch-image", "corrupted"): 0.3, ("video", "actions"): 0.6, ("scratch", "actions"): scratch, ("part0.1", "actions"): part, ("shuffled", "motion"): shuffled,
            ("video", "motion"): 0.6, ("image", "motion"): still, ("video", "pictures"): 0.7, ("shuffled", "pictures"): 0.7,
            ("video", "corrupted"): 0.6, ("image", "corrupted"): image}


def test_each_verdict_can_come_out_of_every_claim() -> None:
    def said(evidence: Evidence) -> dict[str, str]:
        return {each.claim.key: each.verdict for each in judge(evidence)}

    many = {"clips": 4000, "seeds": 6}
    assert said(drawn(world(0.4, 0.4, 0.3, 0.4, 0.1), **many, decibel=2)) == dict.fromkeys(
        ("labels", "footage", "fill", "robust", "order", "looks", "still"), CONFIRMED)
    against = said(drawn({**world(0.6, 0.65, 0.6, 0.6, 0.3), ("shuffled", "pictures"): 0.5}, **many, decibel=-2))
    assert against == dict.fromkeys(against, CONTRADICTED)
    few = said(drawn(world(0.57, 0.57, 0.57, 0.57, 0.12), seeds=3, clips=40, decibel=0.5))
    assert few == dict.fromkeys(few, UNDECIDED)
    shape = world(0.4, 0.4, 0.3, 0.4, 0.1) | {("scratch-image", "corrupted"): 0.1}
    assert said(drawn(shape, **many))["robust"] == CONTRADICTED  # random weights of the two shapes are as far apart
    none = said(drawn({}))
    assert set(none.values()) == {UNDECIDED, CONTRADICTED} and none["fill"] == CONTRADICTED  # hidden frames were tested, the others not


def test_a_slope_is_that_of_the_least_squares_line() -> None:
    evidence = drawn(world(0.4, 0.4, 0.3, 0.4, 0.1))
    part = next(claim for claim in CLAIMS if claim.key == "footage").parts[0]
    accuracies = [100 * evidence.right(model, "actions").mean() for model in ("part0.1", "video")]
    assert evidence.effect(part).value == pytest.approx(accuracies[1] - accuracies[0])  # two amounts, tenfold
    three = Evidence({**RECORD, "amounts": {"part0.1": 6.0, "scratch": 20.0, "video": 60.0}}, evidence.seeds)
    means = [100 * three.right(model, "actions").mean() for model in ("part0.1", "scratch", "video")]
    assert three.effect(part).value == pytest.approx(np.polyfit(np.log10([6, 20, 60]), means, 1)[0])


def write_cell(runs: Path, name: str, cell: dict[str, object], right: np.ndarray, *, conditions: tuple[str, ...] = ()) -> None:
    """A finished cell that says the truth of clips where `right`."""
    run = RunFolder(runs / name)
    run.path.mkdir(parents=True)
    label = np.arange(len(right)) % CLASSES
    prob = np.full((len(right), CLASSES), 0.01)
    prob[np.arange(len(right)), np.where(right, label, (label + 1) % CLASSES)] = 0.91
    said = from_probabilities(prob, label, np.arange(len(right), dtype=np.uint64)[::-1], [f"c{i}" for i in range(CLASSES)])
    write_json(run.record, {"cell": cell})
    write_json(run.result, {})
    if conditions:
        run.conditions.mkdir()
    for condition in conditions:
        said.write(run.conditions / f"{condition}.npz")
    if not conditions:
        said.write(run.predictions)


@pytest.fixture(scope="module")
def replication(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four seeds, one of which is not done; video is right on 3 of 4 clips, random weights on every second."""
    out = tmp_path_factory.mktemp("replication")
    write_json(out / "replication.json", RECORD)
    number = np.arange(40)
    for seed in range(4):
        runs = out / f"seed-{seed}/runs"
        models = {"video": "video-aaaaaaaa", "image": "video-image-frames-bbbbbbbb", "shuffled": "shuffled-cccccccc", "part0.1": "part0.1-dddddddd"}
        runs.mkdir(parents=True)
        write_json(out / f"seed-{seed}/models.json", models)
        contents = {role: f"run:{name[-8:]}" for role, name in models.items()} | {
            "scratch": "scratch:vit_nano_patch16-64px-16x2", "scratch-image": "scratch:vit_nano_patch16-64px-1x1"}
        for data in ("actions", "motion", "digits"):
            for role, content in contents.items():
                right = number % 4 > 0 if role == "video" else number % 2 > 0
                write_cell(runs, f"{role}-{data}-x", {"checkpoint_content": content, "data": data}, right)
        for role in ("video", "image", "scratch", "scratch-image"):
            write_cell(runs, f"robust-{role}", {"checkpoint_content": contents[role], "data": "digits"}, number % 2 > 0,
                       conditions=("clean", "fog-3", "contrast-3"))
        write_cell(runs, "other", {"checkpoint_content": "run:ffffffff", "data": "actions"}, number < 0)  # of no model of ours
        (out / f"seed-{seed}/fill").mkdir()
        rows = [f"videos,{i},0,c{i},{method},1.0,{value + i % 3},0" for i in range(12) for method, value in (("model", 21), ("hold", 20))]
        (out / f"seed-{seed}/fill/scores.csv").write_text("\n".join(["domain,row,clip,content,method,motion_px,psnr_db,ssim", *rows]))
        if seed < 3:
            write_json(out / f"seed-{seed}/done.json", {"seed": seed})
    return out


def test_evidence_is_what_the_runs_say(replication: Path) -> None:
    evidence = read_evidence(replication)
    assert [seed.number for seed in evidence.seeds] == [0, 1, 2]
    assert evidence.right("video", "actions").shape == (3, 40)
    assert evidence.right("video", "actions").mean() == 0.75 and evidence.right("scratch", "motion").mean() == 0.5
    assert evidence.right("image", "corrupted").mean() == 0.5 and np.all(evidence.right("chance", "pictures") == 0.1)
    assert np.all(evidence.filled("model") - evidence.filled("hold") == 1)
    found = {each.claim.key: each for each in judge(evidence)}
    assert found["labels"].effects[0].value == pytest.approx(25) and found["labels"].cost == 90 and found["robust"].cost == 0
    assert found["fill"].verdict == CONFIRMED and found["robust"].effects[0].value == 0


def test_the_page_says_verdicts_costs_and_what_is_missing(replication: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(replication)]) == 0
    page = (replication / "page.html").read_text()
    assert "3 of 4 done" in page and "25.00 [" in page and "1 May 2030" in page and "python x" in page
    written = {claim["key"]: claim for claim in read_json(replication / "verdicts.json")["claims"]}
    assert written["fill"]["verdict"] == CONFIRMED and written["labels"]["parts"][0]["effect"]["seeds"] == 3
    assert "| statement |" in (replication / "verdicts.md").read_text()
    out = capsys.readouterr()
    assert out.out.strip() == str(replication / "page.html")


def test_clips_of_a_group_are_one_unit_and_clips_of_none_are_refused(replication: Path) -> None:
    hidden = {f"c{i}": 100 + i // 2 for i in range(12)}
    write_json(replication / "groups.json", {"actions": {f"{i:016x}": i // 5 for i in range(40)} | hidden})
    found = {each.claim.key: each for each in judge(read_evidence(replication))}
    assert found["fill"].effects[0].units == 6
    assert (found["labels"].effects[0].units, found["order"].effects[0].units, found["looks"].effects[0].units) == (8, 40, 40)
    assert found["labels"].effects[0].value == pytest.approx(25)
    write_json(replication / "groups.json", {"actions": {f"{i:016x}": 0 for i in range(39)} | hidden})
    with pytest.raises(ValueError, match="1 of 40 test clips are in no group"):
        judge(read_evidence(replication))
    (replication / "groups.json").unlink()


def test_hidden_frames_of_a_scene_are_one_unit() -> None:
    index = pd.MultiIndex.from_tuples([(f"{i:016x}", str(i), "0") for i in range(60)], names=["content", "row", "clip"])
    seeds = [SeedFound(n, {}, {"model": pd.Series(np.arange(60.0), index), "hold": pd.Series(np.zeros(60), index)}) for n in range(3)]
    part = next(claim for claim in CLAIMS if claim.key == "fill").parts[0]
    assert Evidence(RECORD, seeds, {"actions": {i: i % 6 for i in range(60)}}).effect(part).units == 6
    assert Evidence(RECORD, seeds).effect(part).units == 60


def test_the_page_says_when_claims_were_changed_and_how_often_was_asked(replication: Path) -> None:
    first = {"claims_sha256": claims_sha256(), "commit": "abc", "date": "1 May 2030", "late": False}
    said = {"claims.py is as it was at the first call, before the runs": {}, "the claims were changed after runs had begun": {"claims_sha256": "0"},
            "runs had begun before": {"late": True}}
    for words, changed in said.items():
        write_json(replication / "asked.json", {"first": {**first, **changed}, "calls": [3, 4, 4]})
        assert main([str(replication)]) == 0
        assert words in (replication / "page.html").read_text().replace("\n", " ")
        assert words[1:] in (replication / "verdicts.md").read_text() and words in read_json(replication / "verdicts.json")["claims_are"]
    assert "called 3 times, first for 3 seeds, later for up to 4" in (replication / "page.html").read_text()
    (replication / "asked.json").unlink()
    main([str(replication)])
    assert "is not known: no call noted its SHA-256" in (replication / "page.html").read_text()


def test_a_folder_that_is_no_replication_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2 and "is no folder of a replication" in capsys.readouterr().err
    write_json(tmp_path / "replication.json", RECORD)
    assert main([str(tmp_path)]) == 2 and "no seed is done" in capsys.readouterr().err
