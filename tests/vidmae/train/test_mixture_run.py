"""A run on a mixture in order of age, with clips put together otherwise: stopped and continued it ends with the same bits."""

import shutil

import pytest

from tests.support.facilities import demo_clips, need
from tests.support.interruptions import untimed, weights
from tests.support.runs import make_run, train
from vidmae.footage.manifest import Check, Source
from vidmae.footage.manifest_build import build as build_manifest
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import read_json


@pytest.mark.slow
def test_a_mixture_by_age_resumes_to_the_bit_and_counts_its_sources(tmp_path):
    need("clips")
    clips = [path for path in demo_clips() if path.stem.startswith("carphone")]
    listed = []
    for name, days, more in (("s", ("20130102", "20130601"), "weight: 0.5"), ("a", ("20140102",), "weight: 2")):
        sources = []
        for i, day in enumerate(days):
            copy = tmp_path / f"{name.upper()}_{day}_0900_01_segment01.mp4"
            shutil.copy(clips[i], copy)
            sources.append(Source(str(copy), ""))
        manifest = tmp_path / f"{name}.csv"
        build_manifest(sources, manifest, Check("pyav", False), workers=1, time_limit_s=120, progress=lambda *_: None)
        listed.append(f"{{name: {name}, {more}, manifest: {manifest}}}")
    settings = [f"data.sources=[{', '.join(listed)}]", "data.order=age", "data.weight=seconds", "data.clip=reversed", "train.global_batch=6"]
    whole, cut = (make_run(tmp_path / name, "", *settings) for name in ("whole", "cut"))
    codes, said = train(whole)
    assert codes == [0], said
    shutil.copytree(whole.checkpoints / "step_00000002", cut.checkpoints / "step_00000002")
    cut.metrics.write_text("".join(whole.metrics.read_text().splitlines(keepends=True)[:3]))
    codes, said = train(cut)
    assert codes == [0] and "continuing from step_00000002" in said, said
    assert untimed(cut) == untimed(whole)
    assert all((weights(cut)[name] == value).all() for name, value in weights(whole).items())
    # 8.0 s and 4.0 s are 15 and 8 visits of 0.53 s (2 clips of 4 frames, 2 of 30 fps); half of 15 is 8, twice 8 is 16
    assert [m["seen"] for m in read_metrics(whole)] == [{"s": s, "a": 6 * step - s} for step, s in enumerate((2, 4, 6, 8), 1)]
    assert read_json(whole.result)["seen"] == {"s": 8, "a": 16}
