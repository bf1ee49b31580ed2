"""The tables of an interpolation: one row per clip and method, and what they come to. No torch.

    OUT/                      0700
      config.yaml             what was asked for
      videos-NAME.csv         manifest of a folder or file that had none (the one place with file names)
      parts/of_0004/0001.csv  rows of one part of the clips; 0001.json: how many could not be read, and why
      scores.csv              all rows: domain, row (of the manifest, from 1), clip, content, method, motion_px, scores
      methods.csv             mean of every score per domain, third of motion, method
      differences.csv         model minus each baseline, paired, with 95 % intervals over recordings
      domains.csv             of several domains: that difference in the first minus that in each other one, with intervals
      tracking.csv            with --track: place and number of the objects of each scene; tracking_summary.csv has the means
      pictures/               only where asked for: NAME-row00012-0.png (three rows), .mp4 (side by side)
      result.json             exists exactly when all parts are done
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vidmae.insight.csv_rows import Row
from vidmae.insight.interpolation.scores import MORE_IS_BETTER, SCORES
from vidmae.insight.paired import THIRDS, difference_of_differences, motion_thirds, paired_difference

MODEL = "model"
KEYS = ("domain", "row", "clip", "content", "method", "motion_px")
COLUMNS = (*KEYS, *SCORES)
NUMBERS = frozenset({"motion_px", *SCORES})
ALL = "all"


def methods_table(rows: Sequence[Row]) -> list[Row]:
    """The mean of every score, each recording counting once."""
    table = []
    for domain, third, part in _parts(rows):
        for method in dict.fromkeys(row["method"] for row in part):
            chosen = [row for row in part if row["method"] == method]
            _, which = np.unique([row["content"] for row in chosen], return_inverse=True)
            means = {name: _mean_of_means(np.array([row[name] for row in chosen]), which) for name in ("motion_px", *SCORES)}
            table.append({"domain": domain, "motion": third, "method": method, "clips": len(chosen),
                          "recordings": int(which.max()) + 1, **means})
    return table


METHOD_COLUMNS = ("domain", "motion", "method", "clips", "recordings", "motion_px", *SCORES)
DIFFERENCE_COLUMNS = ("domain", "motion", "baseline", "score", "difference", "ci_low", "ci_high", "better_pct", "clips",
                      "recordings")


def differences_table(rows: Sequence[Row]) -> list[Row]:
    """Model minus each baseline on the same clips; `better_pct` is the share of clips on which the model is better."""
    table = []
    for domain, third, part in _parts(rows):
        for name, clips, mine, theirs in _beside(part):
            for score in SCORES:
                found = paired_difference(mine[score], theirs[score], np.array([key[0] for key in clips]))
                better = mine[score] > theirs[score] if score in MORE_IS_BETTER else mine[score] < theirs[score]
                table.append({"domain": domain, "motion": third, "baseline": name, "score": score,
                              "difference": found.mean, "ci_low": found.low, "ci_high": found.high,
                              "better_pct": 100 * float(better.mean()), "clips": found.clips,
                              "recordings": found.recordings})
    return table


DOMAIN_COLUMNS = ("domain", "other", "motion", "baseline", "score", "difference", "other_difference", "apart", "ci_low",
                  "ci_high", "clips", "other_clips", "recordings", "other_recordings")


def domains_table(rows: Sequence[Row]) -> list[Row]:
    """Model minus each baseline in the first domain, minus the same in each other domain: `apart`.

    Thirds of motion are those of the clips of both domains together, so that clips that move alike are compared. Scores of
    which less is better keep their sign: a negative `apart` then speaks for the first domain.
    """
    first, *others = dict.fromkeys(row["domain"] for row in rows)
    table = []
    for other in others:
        for third, part in _thirds([row for row in rows if row["domain"] in (first, other)]):
            sides = [{name: (clips, mine, theirs) for name, clips, mine, theirs in
                      _beside([row for row in part if row["domain"] == domain])} for domain in (first, other)]
            for name in (name for name in sides[0] if name in sides[1]):
                for score in SCORES:
                    apart = [(mine[score] - theirs[score], np.array([key[0] for key in clips]))
                             for clips, mine, theirs in (side[name] for side in sides)]
                    found = difference_of_differences(*apart[0], *apart[1])
                    table.append({"domain": first, "other": other, "motion": third, "baseline": name, "score": score,
                                  "difference": found.one, "other_difference": found.other,
                                  "apart": found.one - found.other, "ci_low": found.low, "ci_high": found.high,
                                  "clips": found.clips[0], "other_clips": found.clips[1],
                                  "recordings": found.recordings[0], "other_recordings": found.recordings[1]})
    return table


Key = tuple[str, str, str]
"""Of a clip: content of its recording, row, number."""
Scores = dict[str, np.ndarray]


def _beside(part: Sequence[Row]) -> Iterable[tuple[str, list[Key], Scores, Scores]]:
    """Each baseline, the clips that it and the model have scores of, and these scores of the model and of the baseline."""
    by_method = {method: {(r["content"], r["row"], r["clip"]): r for r in part if r["method"] == method}
                 for method in dict.fromkeys(row["method"] for row in part)}
    model = by_method.pop(MODEL, {})
    for name, other in by_method.items():
        if clips := [key for key in model if key in other]:
            mine, theirs = ({score: np.array([found[key][score] for key in clips]) for score in SCORES}
                            for found in (model, other))
            yield name, clips, mine, theirs


def _parts(rows: Sequence[Row]) -> Iterable[tuple[str, str, list[Row]]]:
    """Domain, third of motion, rows: all rows of each domain, then each third that is not empty."""
    for domain in dict.fromkeys(row["domain"] for row in rows):
        for third, part in _thirds([row for row in rows if row["domain"] == domain]):
            yield domain, third, part


def _thirds(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    """All rows, then those of each third of the clips by motion that is not empty."""
    yield ALL, list(rows)
    clips = {(row["domain"], row["content"], row["row"], row["clip"]): row["motion_px"] for row in rows}
    third = dict(zip(clips, motion_thirds(np.array(list(clips.values()))).tolist(), strict=True))
    for name in THIRDS:
        part = [row for row in rows if third[row["domain"], row["content"], row["row"], row["clip"]] == name]
        if part and len(clips) >= len(THIRDS):
            yield name, part


def _mean_of_means(values: np.ndarray, which: np.ndarray) -> float:
    return float((np.bincount(which, weights=values) / np.bincount(which)).mean())
