"""One domain against the others: model minus baseline here, minus the same there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jobs.standing.interpolate_show import show_domains
from vidmae.insight.interpolation.interpolate_table import DOMAIN_COLUMNS, differences_table, domains_table
from vidmae.insight.interpolation.scores import SCORES
from vidmae.insight.paired import difference_of_differences


def rows_of(domain: str, recordings: int, better: float, seed: int, motion_px: float = 1.0) -> list[dict[str, Any]]:
    """Two clips of each recording: the model is `better` than hold, and as good as fade."""
    rng, rows = np.random.default_rng(seed), []
    for recording in range(recordings):
        gain = better + rng.normal(0, 0.2)
        for clip in range(2):
            base = {score: float(rng.normal(20, 3)) for score in SCORES}
            for method, more in (("model", gain), ("hold", 0.0), ("fade", gain + rng.normal(0, 0.2))):
                rows.append({"domain": domain, "row": str(recording), "clip": str(clip), "content": f"{domain}{recording}", "method": method,
                             "motion_px": motion_px + 0.01 * recording, **{score: value + more for score, value in base.items()}})
    return rows


def test_one_domain_against_each_other_one() -> None:
    rows = rows_of("own", 10, 2.0, 0) + rows_of("other", 12, 0.5, 1) + rows_of("third", 4, 0.5, 2)
    table = domains_table(rows)
    assert all(tuple(row) == DOMAIN_COLUMNS for row in table) and {row["other"] for row in table} == {"other", "third"}
    found = next(row for row in table if (row["other"], row["motion"], row["baseline"], row["score"]) == ("other", "all", "hold", "psnr_db"))
    here, there = (next(row["difference"] for row in differences_table(rows) if (row["domain"], row["motion"], row["baseline"], row["score"])
                        == (domain, "all", "hold", "psnr_db")) for domain in ("own", "other"))
    assert (found["difference"], found["other_difference"]) == pytest.approx((here, there))
    assert found["apart"] == pytest.approx(here - there) and found["ci_low"] > 1 and found["ci_high"] < 2
    assert (found["recordings"], found["other_recordings"], found["clips"], found["other_clips"]) == (10, 12, 20, 24)
    fade = next(row for row in table if (row["other"], row["motion"], row["baseline"], row["score"]) == ("other", "all", "fade", "psnr_db"))
    assert fade["ci_low"] < 0 < fade["ci_high"], "against a baseline that is as good in both, nothing"
    assert all(np.isnan(row["ci_low"]) for row in table if row["other"] == "third"), "four recordings claim nothing"
    direct = difference_of_differences(*(array for domain in ("own", "other") for array in apart(rows, domain)))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((direct.low, direct.high))


def apart(rows: list[dict[str, Any]], domain: str) -> tuple[np.ndarray, np.ndarray]:
    scores = {method: [row["psnr_db"] for row in rows if (row["domain"], row["method"]) == (domain, method)] for method in ("model", "hold")}
    contents = [row["content"] for row in rows if (row["domain"], row["method"]) == (domain, "model")]
    return np.subtract(scores["model"], scores["hold"]), np.array(contents)


def test_thirds_of_motion_are_those_of_both_domains() -> None:
    """Clips of a domain that moves more are compared with those of the other that move as much, where there are any."""
    table = domains_table(rows_of("own", 9, 2.0, 0, motion_px=1.0) + rows_of("other", 9, 2.0, 1, motion_px=9.0))
    assert {row["motion"] for row in table} == {"all", "middle"}
    assert next(row for row in table if row["motion"] == "middle")["recordings"] < 9


def test_one_domain_has_no_table() -> None:
    assert domains_table(rows_of("own", 7, 1.0, 0)) == []


def test_people_see_it(capsys: pytest.CaptureFixture[str]) -> None:
    table = [{key: None if value != value else value for key, value in row.items()}
             for row in domains_table(rows_of("own", 10, 2.0, 0) + rows_of("other", 4, 0.5, 1))]
    show_domains(table, Console(width=160))
    said = capsys.readouterr().out
    assert "own (10 recordings) against other (4)" in " ".join(said.split()) and "own minus other" in said
    line = next(line for line in said.splitlines() if "hold" in line)
    assert "[" not in line, "no interval with four recordings"
