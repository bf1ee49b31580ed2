"""What the demo's model sees: interpolation, tracking, attention, embeddings and a page with all of it.

    make look                      after make demo; under two minutes on 2 cores
    python jobs/submit/example/demo_look.py       the same in an environment that is ready

It types the commands that a user would type, and shows them. Results go to demo/look/, where they are made anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from jobs.demo import ROOT, run

FILMS, LABELLED = "manifests/demo.csv", "manifests/motion-val.csv"
RUNS, OUT = "demo/runs", "demo/look"
HERE = "--cluster", "local", "--runs-dir", RUNS
EMBEDDINGS = """
Nearest clips have the same class less often than chance, and that is as it should be: all ten motions of the camera are
rendered from the same places of the same film, and share the middle picture. Such a clip is more like the other nine motions
of its place than like its own motion elsewhere, as long as the features follow what is seen and not how it moves."""


def main() -> int:
    """Fill in, track, look, embed, and write the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    model = trained("demo")
    if model is None:
        print("error: the demo's model is missing; train it first: make demo", file=sys.stderr)
        return 2
    shutil.rmtree(ROOT / OUT, ignore_errors=True)
    fill_in(model)
    run("analysis/attention.py", "--run", model, "--videos", FILMS, "--rollout", "--per-video", "4", "--frames",
        "--clips", "1", "--out", f"{OUT}/attention")
    run("jobs/embed.py", "--run", model, "--data", LABELLED, *HERE, "--out", f"{OUT}/features")
    run("analysis/embeddings.py", f"{OUT}/features", "--frames", LABELLED, "--out", f"{OUT}/embeddings")
    results = [word for name in ("center", "random", "attention", "embeddings") for word in ("--with", f"{OUT}/{name}")]
    page = run("analysis/report.py", model, *results, "--frames", "--out", f"{OUT}/report.html")
    picture = min((ROOT / OUT / "center/pictures").glob("*-row*.png"))
    print(f"\nDone: {page}\n  picture    {picture.relative_to(ROOT)}\n  tables     {OUT}/*/*.csv", EMBEDDINGS, sep="\n",
          file=sys.stderr)
    return 0


def fill_in(model: str) -> None:
    """Hide the middle, with scenes to track in; and patches at random, where an image model has something to see."""
    run("jobs/pretrain.py", "--recipe", "demo_image", "--data", FILMS, *HERE, "--wait")
    asked = ["--run", model, "--image", str(trained("demo-image")), "--untrained", "--videos", FILMS, "--per-video", "4"]
    run("jobs/interpolate.py", *asked, *HERE, "--track", "3", "--frames", "--clips", "3", "--out", f"{OUT}/center")
    run("jobs/interpolate.py", *asked, *HERE, "--mask", "random", "--ratio", "0.9", "--out", f"{OUT}/random")


def trained(name: str) -> str | None:
    """The newest finished run of a name in the demo's folder."""
    found = [path for path in (ROOT / RUNS).glob("*/result.json") if json.loads(path.read_text()).get("name") == name]
    return str(max(found, key=lambda path: path.stat().st_mtime).parent.relative_to(ROOT)) if found else None


if __name__ == "__main__":
    sys.exit(main())
