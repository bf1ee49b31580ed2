"""Draw and score the features that jobs/embed.py wrote: do classes lie together that the model was never told of?

    python analysis/embeddings.py results/s-ssv2 --out tables/s-ssv2
    python analysis/embeddings.py results/s-ssv2 --out tables/s-ssv2 --frames manifests/ssv2-val.csv --queries 30
    python analysis/embeddings.py results/s-ssv2 results/say-ssv2 --similarity --out tables/similarity

Of both features, the class token (cls) and the mean of the patch tokens (mean): embedding-scores.csv has the silhouette by
cosine and how many of the 1, 5 and 10 nearest clips have the same class, beside chance and the most that can be had;
embedding-cls.png and .svg show PCA and t-SNE by class; neighbours.csv the nearest clips of some, by content hash. --frames
adds neighbours.html with a picture of each: it shows the footage, which may be private. Clips without labels have no class
to be scored or drawn by: then there are only neighbours, and the exit code is 3.

--similarity compares representations instead: each layer (jobs/embed.py --layers) of each folder with each other one, over
the clips that all folders have. similarity.csv has linear CKA without bias and RSA with 95 % intervals over clips, or over
recordings, of windows (jobs/embed.py --window-s);
similarity.png and .svg are heat maps. It needs no labels.

Exit codes: 0 ok, 2 usage or damaged files, 3 the clips have no labels, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import numpy as np
import pandas as pd

from analysis.page.finding_tables import BELOW_CHANCE
from analysis.page.html import to_html
from analysis.results.table_flags import Parser, tables_folder
from analysis.tables.sheet import Sheet, csv_text, show, texts, to_csv
from analysis.tables.survey.neighbours.nearest import AT, precisions, silhouette
from analysis.tables.survey.neighbours.neighbour_table import neighbour_table, read_thumbnails
from vidmae.insight.embedding_files import FEATURES, NO_LABEL, Embeddings, read_embeddings
from vidmae.runs.record import make_private_folder, write_atomic
from vidmae.settings.command_line import answer

SCORES = ["value", "chance", "ceiling"]
NEIGHBOURS = ["feature", "content", "place", "neighbour", "cosine", "same_class"]
OF_WINDOWS = ["start_s", "neighbour_start_s"]  # of neighbours, where windows slide
NOTES = ("silhouette: -1 to 1; precision: share of a clip's nearest clips, itself and copies left out, that have its class",
         "chance: neighbours drawn at random; ceiling: the most that there can be, as a class has only so many clips")
OF_SILHOUETTE = ("silhouette: -- of windows, since those of one recording have one class and look alike; precision leaves "
                 "windows of the same recording out")
UNLABELLED = ("the clips have no labels, so there is no picture by class, no silhouette and no precision; labels come from "
              "the manifest (python jobs/prepare.py manifest --labels ...)")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER",
                        help="what jobs/embed.py wrote; several with --similarity")
    parser.add_argument("--out", type=tables_folder, required=True, metavar="FOLDER", help="where tables and pictures go")
    parser.add_argument("--points", type=int, default=3000, metavar="N",
                        help="clips in a picture, drawn at random where there are more (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=20, metavar="N",
                        help="clips whose neighbours are listed, evenly spread (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of t-SNE (default: %(default)s)")
    parser.add_argument("--no-pictures", action="store_true", help="tables only")
    parser.add_argument("--frames", type=Path, metavar="MANIFEST",
                        help="also write neighbours.html with a frame of each clip, which may be private, from these videos")
    parser.add_argument("--similarity", action="store_true",
                        help="compare the layers and models of all folders: CKA and RSA, a table and heat maps")
    parser.add_argument("--feature", choices=(*FEATURES, "both"), default="mean",
                        help="with --similarity: which feature (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=500, metavar="N",
                        help="with --similarity: clips that are compared, drawn at random where there are more; time and "
                             "memory grow with the square (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print scores and files as one JSON object")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="the same command does it anew")


def run(args: argparse.Namespace) -> int:
    """Read, score, draw, write."""
    if args.points < 1 or args.queries < 1:
        raise ValueError(f"--points {args.points} and --queries {args.queries} must be 1 or more")
    if args.similarity:
        return compare(args)
    if len(args.folder) > 1:
        raise ValueError(f"{len(args.folder)} folders are given; they are drawn and scored one at a time, or compared with "
                         "--similarity")
    found, record = read_embeddings(args.folder[0])
    if args.frames and found.start_s is not None:
        raise ValueError(f"--frames {args.frames} shows the middle of whole clips, and {args.folder[0]} holds windows; "
                         "allowed: features without windows (jobs/embed.py without --window-s), or no --frames")
    names = {int(index): name for index, name in record["classes"].items()}
    make_private_folder(args.out)
    texts, sheets = neighbour_texts(found, names, record["data"], args), list[Sheet]()
    if labelled := bool((found.label != NO_LABEL).any()):
        sheets = [scores_sheet(found, record, args.seed)]
    texts |= {f"{sheet.name}.csv": to_csv(sheet) for sheet in sheets}
    for name, text in texts.items():
        write_atomic(args.out / name, text.encode())
    show(sheets)
    files = [args.out / name for name in texts]
    if not labelled:
        note(UNLABELLED)
    elif not args.no_pictures:
        files += draw_pictures(found, names, record["data"], args)
    scores = [row for sheet in sheets for row in sheet.records.replace({np.nan: None}).to_dict("records")]
    shown = list(map(str, files))
    print(json.dumps({"files": shown, "scores": scores}) if args.json else "\n".join(shown))
    return 0 if labelled else 3


def compare(args: argparse.Namespace) -> int:
    """Compare the representations of all folders, and write the table and the heat maps."""
    from analysis.tables.survey.similarity import FEWEST, similarities
    from analysis.tables.survey.similarity_sheets import (
        check_alike,
        draw_similarity,
        recordings,
        representations,
        similarity_sheet,
    )

    if args.clips < FEWEST:
        raise ValueError(f"--clips {args.clips} must be {FEWEST} or more")
    read = {str(folder): read_embeddings(folder) for folder in args.folder}
    names = dict(zip(read, short_names(list(read)), strict=True))
    kinds = FEATURES if args.feature == "both" else (args.feature,)
    check_alike({names[folder]: record for folder, (_, record) in read.items()})
    folders = {names[folder]: found for folder, (found, _) in read.items()}
    every = representations(
        folders, {names[folder]: record.get("layers", []) for folder, (_, record) in read.items()}, kinds)
    if len(every) < 2:
        raise ValueError(f"{args.folder[0]} holds one representation, so there is nothing to compare: give another folder, "
                         "or write several layers (jobs/embed.py --layers)")
    total = len(every[0].features)
    chosen = np.arange(total)
    if total > args.clips:
        chosen = np.sort(np.random.default_rng(args.seed).choice(total, args.clips, replace=False))
    of_windows = recordings(folders)
    recording = None if of_windows is None else of_windows[chosen]
    found = similarities([each.features[chosen] for each in every], recording=recording, seed=args.seed)
    labels = [each.name for each in every]
    sheet = similarity_sheet(labels, found, len(chosen), total, None if recording is None else len(np.unique(recording)))
    make_private_folder(args.out)
    files = [args.out / f"{sheet.name}.csv"]
    write_atomic(files[0], to_csv(sheet).encode())
    show([sheet])
    if not args.no_pictures:
        files += draw_similarity(labels, found, args.out / sheet.name)
    shown = list(map(str, files))
    rows = sheet.records.replace({np.nan: None}).to_dict("records")
    print(json.dumps({"files": shown, "similarity": rows}) if args.json else "\n".join(shown))
    return 0


def short_names(folders: Sequence[str]) -> list[str]:
    """The last part of each path, or all of it where two end alike."""
    ends = [Path(folder).name or folder for folder in folders]
    return [end if ends.count(end) == 1 else folder for end, folder in zip(ends, folders, strict=True)]


def note(text: str) -> None:
    """Say something on standard error."""
    print(f"note: {text}", file=sys.stderr)


def scores_sheet(found: Embeddings, record: Mapping[str, Any], seed: int = 0) -> Sheet:
    """The table of scores, of the clips that have a label; -- where there are too few clips for one."""
    has, rows = found.label != NO_LABEL, list[dict[str, object]]()
    content, label = found.content[has], found.label[has]
    for name in FEATURES:
        features = getattr(found, name)[has]
        value, clips = (silhouette(features, label, seed) if found.start_s is None else None) or (None, len(label))
        rows.append({"feature": name, "score": "silhouette", "value": value, "clips": clips})
        at = {precision.at: precision._asdict() for precision in precisions(features, content, label)}
        rows += [{"feature": name, "score": f"precision at {k}", "clips": len(label), **at.get(k, {})} for k in AT]
    records = pd.DataFrame(rows, columns=["feature", "score", *SCORES, "clips"])
    shown = records.assign(**{name: texts(records[name], ".3f") for name in SCORES}, clips=texts(records["clips"], ","))
    windows = [] if found.start_s is None else [OF_SILHOUETTE]
    left_out = [f"{(~has).sum():,} clips without a label are left out"] if not has.all() else []
    below = [BELOW_CHANCE] if (records["value"] < records["chance"]).any() else []
    classes = len(np.unique(label))
    return Sheet("embedding-scores", f"{record['data']}, {classes} classes, weights {record['weights_content']}",
                 shown, 2, records.assign(classes=classes), [*NOTES, *windows, *below, *left_out])


def draw_pictures(found: Embeddings, names: Mapping[int, str], data: str, args: argparse.Namespace) -> list[Path]:
    """A picture of each feature; says what it does not show."""
    from analysis.tables.survey.neighbours.embedding_pictures import FEWEST_CLIPS, coloured, draw

    if len(found) < FEWEST_CLIPS:
        note(f"no picture of {len(found)} clips; it takes {FEWEST_CLIPS}")
        return []
    shown = np.arange(len(found))
    if len(found) > args.points:
        shown = np.sort(np.random.default_rng(args.seed).choice(len(found), args.points, replace=False))
        note(f"pictures show {args.points:,} of {len(found):,} clips, drawn at random (--points)")
    label = found.label[shown]
    if others := len(np.unique(label[label >= 0])) - len(coloured(label)):
        note(f"the {len(coloured(label))} largest classes are coloured, {others} others are grey")
    return [file for name in FEATURES for file in draw(
        getattr(found, name)[shown], label, names, f"{data}, {name} features", args.out / f"embedding-{name}", args.seed)]


def neighbour_texts(found: Embeddings, names: Mapping[int, str], data: str, args: argparse.Namespace) -> dict[str, str]:
    """neighbours.csv, and neighbours.html where frames may be shown."""
    queries = np.unique(np.linspace(0, len(found) - 1, min(args.queries, len(found))).round().astype(np.int64))
    clips = neighbour_table(found, names, queries)
    alike = clips[clips["place"] > 0]
    alike = alike.assign(cosine=alike["cosine"].map("{:.6f}".format))
    if found.start_s is not None:
        alike = alike.assign(**{name: alike[name].map("{:g}".format) for name in OF_WINDOWS})
    columns = [name for name in (*NEIGHBOURS, *OF_WINDOWS) if name in alike]
    texts = {"neighbours.csv": csv_text(alike[columns])}
    if args.frames:
        pictures = read_thumbnails(args.frames, clips["neighbour"])
        texts["neighbours.html"] = to_html("neighbours.html", title=f"Nearest clips, {data}", clips=clips, pictures=pictures)
    return texts


if __name__ == "__main__":
    sys.exit(main())
