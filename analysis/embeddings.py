"""Draw and score the features that jobs/embed.py wrote: do classes lie together that the model was never told of?

    python analysis/embeddings.py results/s-ssv2 --out tables/s-ssv2
    python analysis/embeddings.py results/s-ssv2 --out tables/s-ssv2 --frames manifests/ssv2-val.csv --queries 30

Of both features, the class token (cls) and the mean of the patch tokens (mean): embedding-scores.csv has the silhouette by
cosine and how many of the 1, 5 and 10 nearest clips have the same class, beside chance and the most that can be had;
embedding-cls.png and .svg show PCA and t-SNE by class; neighbours.csv the nearest clips of some, by content hash. --frames
adds neighbours.html with a picture of each: it shows the footage, which may be private. Clips without labels have no class
to be scored or drawn by: then there are only neighbours, and the exit code is 3.

Exit codes: 0 ok, 2 usage or damaged files, 3 the clips have no labels, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.neighbours.nearest import AT, nearest, precisions, silhouette
from analysis.neighbours.neighbour_page import Found, page, read_thumbnails
from analysis.results.table_flags import Parser, tables_folder
from analysis.tables.sheets import Sheet, csv_text, to_console, to_csv
from vidmae.insight.embedding_files import FEATURES, NO_LABEL, Embeddings, read_embeddings
from vidmae.runs.record import make_private_folder, write_atomic

WIDEST = 200
NOTES = ("silhouette: -1 to 1; precision: share of a clip's nearest clips, itself and copies left out, that have its class",
         "chance: neighbours drawn at random; ceiling: the most that there can be, as a class has only so many clips")
UNLABELLED = ("the clips have no labels, so there is no picture by class, no silhouette and no precision; labels come from "
              "the manifest (python jobs/prepare.py manifest --labels ...)")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what jobs/embed.py wrote")
    parser.add_argument("--out", type=tables_folder, required=True, metavar="FOLDER", help="where tables and pictures go")
    parser.add_argument("--points", type=int, default=3000, metavar="N",
                        help="clips in a picture, drawn at random where there are more (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=20, metavar="N",
                        help="clips whose neighbours are listed, evenly spread (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and of t-SNE (default: %(default)s)")
    parser.add_argument("--no-pictures", action="store_true", help="tables only")
    parser.add_argument("--frames", type=Path, metavar="MANIFEST",
                        help="also write neighbours.html with a frame of each clip, which may be private, from these videos")
    parser.add_argument("--json", action="store_true", help="print scores and files as one JSON object")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command does it anew", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    """Read, score, draw, write."""
    if args.points < 1 or args.queries < 1:
        raise ValueError(f"--points {args.points} and --queries {args.queries} must be 1 or more")
    found, record = read_embeddings(args.folder)
    names = {int(index): name for index, name in record["classes"].items()}
    out, console = make_private_folder(args.out), Console(stderr=True, highlight=False, width=WIDEST)
    files = write_neighbours(found, names, record["data"], args)
    records: list[dict[str, object]] = []
    if labelled := bool((found.label != NO_LABEL).any()):
        sheet = scores_sheet(found, record, args.seed)
        records = [dict(row) for row in sheet.records]
        write_atomic(out / f"{sheet.name}.csv", to_csv(sheet).encode())
        files.append(out / f"{sheet.name}.csv")
        console.print(Text(sheet.title, "bold"), to_console(sheet), *map(Text, sheet.footer), sep="\n")
        files += [] if args.no_pictures else draw_pictures(found, names, record["data"], args, console)
    else:
        console.print(Text(f"note: {UNLABELLED}"))
    print(json.dumps({"files": list(map(str, files)), "scores": records}) if args.json else "\n".join(map(str, files)))
    return 0 if labelled else 3


def scores_sheet(found: Embeddings, record: Mapping[str, Any], seed: int = 0) -> Sheet:
    """The table of scores, of the clips that have a label; -- where there are too few clips for one."""
    has, rows, records = found.label != NO_LABEL, list[list[str]](), list[dict[str, object]]()
    content, label = found.content[has], found.label[has]
    for name in FEATURES:
        features = getattr(found, name)[has]
        score, at = silhouette(features, label, seed), {p.at: p for p in precisions(features, content, label)}
        lines: list[tuple[str, float | None, float | None, float | None, int]] = [
            ("silhouette", score[0] if score else None, None, None, score[1] if score else len(label))]
        lines += [(f"precision at {k}", *((p.value, p.chance, p.ceiling) if (p := at.get(k)) else (None,) * 3), len(label))
                  for k in AT]
        for what, value, chance, ceiling, clips in lines:
            records.append({"feature": name, "score": what, "value": value, "chance": chance, "ceiling": ceiling,
                            "clips": clips, "classes": len(np.unique(label))})
            rows.append([name, what, *("--" if v is None else f"{v:.3f}" for v in (value, chance, ceiling)), f"{clips:,}"])
    left_out = [f"{int((~has).sum()):,} clips without a label are left out"] if not has.all() else []
    title = f"{record['data']}, {len(np.unique(label))} classes, weights {record['weights_content']}"
    return Sheet("embedding-scores", title, ("feature", "score", "value", "chance", "ceiling", "clips"), 2, rows, records,
                 [*NOTES, *left_out])


def draw_pictures(found: Embeddings, names: Mapping[int, str], data: str, args: argparse.Namespace, console: Console,
                  ) -> list[Path]:
    """A picture of each feature; says what it does not show."""
    from analysis.neighbours.embedding_pictures import FEWEST_CLIPS, coloured, draw

    if len(found) < FEWEST_CLIPS:
        console.print(Text(f"note: no picture of {len(found)} clips; it takes {FEWEST_CLIPS}"))
        return []
    shown = np.arange(len(found))
    if len(found) > args.points:
        shown = np.sort(np.random.default_rng(args.seed).choice(len(found), args.points, replace=False))
        console.print(Text(f"note: pictures show {args.points:,} of {len(found):,} clips, drawn at random (--points)"))
    label = found.label[shown]
    if others := len(np.unique(label[label >= 0])) - len(coloured(label)):
        console.print(Text(f"note: the {len(coloured(label))} largest classes are coloured, {others} others are grey"))
    return [file for name in FEATURES for file in draw(
        getattr(found, name)[shown], label, names, f"{data}, {name} features", args.out / f"embedding-{name}", args.seed)]


def write_neighbours(found: Embeddings, names: Mapping[int, str], data: str, args: argparse.Namespace) -> list[Path]:
    """neighbours.csv, and neighbours.html where frames may be shown."""
    queries = np.unique(np.linspace(0, len(found) - 1, min(args.queries, len(found))).round().astype(np.int64))
    lines: list[list[object]] = [["feature", "content", "place", "neighbour", "cosine", "same_class"]]
    sections: dict[str, list[list[Found]]] = {}
    for name in FEATURES:
        places, alike = nearest(getattr(found, name), found.content, max(AT), queries)
        sections[f"{name} features"] = [
            [_clip(found, names, query), *(_clip(found, names, row, cosine) for row, cosine in zip(*others, strict=True)
                                           if row >= 0)]
            for query, *others in zip(queries, places, alike, strict=True)]
        lines += [[name, f"{query.content:016x}", place, f"{other.content:016x}", f"{other.cosine:.6f}",
                   int(query.label == other.label) if query.label and other.label else ""]
                  for query, *others in sections[f"{name} features"] for place, other in enumerate(others, 1)]
    texts = {"neighbours.csv": csv_text(lines)}
    if args.frames:
        contents = {each.content for rows in sections.values() for row in rows for each in row}
        texts["neighbours.html"] = page(f"Nearest clips, {data}", sections, read_thumbnails(args.frames, contents))
    for name, text in texts.items():
        write_atomic(args.out / name, text.encode())
    return [args.out / name for name in texts]


def _clip(found: Embeddings, names: Mapping[int, str], row: int, cosine: float = float("nan")) -> Found:
    number = int(found.label[row])
    return Found(int(found.content[row]), "" if number == NO_LABEL else names.get(number, str(number)), float(cosine))


if __name__ == "__main__":
    sys.exit(main())
