"""The sections of a run's page on what it cost: where its seconds went, and which data it had to leave out."""

from __future__ import annotations

import pandas as pd

from analysis.page.charts import bar
from analysis.page.dossier import Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet, duration, moment, number
from vidmae.runs.attempts import PARTS, totals

MOST_WINDOWS = 50
MOST_OPEN = 20


def seconds(run: Dossier) -> Section:
    """Where the seconds of all attempts went, and every start of the job."""
    title = "Where the seconds went"
    if not run.attempts:
        return Section(title, ["There is no account of attempts (attempts.json)."])
    spent, ranks = totals(run.attempts), run.result.get("world_size") or (run.record.get("plan") or {}).get("world_size")
    parts = pd.Series({part.removesuffix("_s"): spent[part] for part in PARTS})
    whole = float(parts.sum())
    good = "not known before the first step" if spent["goodput"] is None else f"{100 * spent['goodput']:.1f} %"
    words = [f"Goodput, the share of the seconds that went into steps done for the first time: {good}."]
    if ranks:
        words.append(f"GPU-hours (rank-hours where there are no GPUs): {number(whole * ranks / 3600)}.")
    share = (100 * parts / whole).map("{:.1f}".format) if whole else "--"
    cells = pd.DataFrame({"part": parts.index, "h:mm:ss": parts.map(duration), "share, %": share})
    cells.loc["between"] = ["in the queue between attempts", duration(spent["between_s"]), "--"]
    return Section(title, words, bar=bar(f"Shares of {duration(whole)}", parts), tables=[
        Table("All attempts", cells, 1), Table("Attempts", attempts(run), 4, folded=len(run.attempts) > MOST_OPEN)])


def attempts(run: Dossier) -> pd.DataFrame:
    """Every start of the job."""
    return pd.DataFrame([{
        "attempt": str(place), "job": discreet(a.job_id), "started": moment(a.started),
        "ended": run.ended(a) or "running, failed or killed", "h:mm:ss": duration(a.updated - a.started),
        "steps before": f"{a.first_step:,}", "steps after": f"{a.last_step:,}", "repeated": f"{a.repeated_steps:,}",
        "slowest save, s": f"{a.slowest_save_s:.1f}"} for place, a in enumerate(run.attempts, 1)])


def left_out(run: Dossier) -> Section:
    """Videos that could not be read, and global batches that were left out."""
    videos = pd.DataFrame([(video.row, discreet(video.reason), video.clips) for video in run.replaced],
                          columns=["row", "reason", "clips"])
    windows = pd.DataFrame([(number(window.get("window")), discreet(window.get("why")), moment(window.get("time")))
                            for window in run.left_out], columns=["window", "why", "when"])
    words = [f"Videos that could not be read and were replaced: {videos['row'].nunique()}.",
             f"Global batches left out after NaN or infinity: {windows['window'].nunique()}."]
    why = videos.groupby("reason", as_index=False).agg(videos=("row", "nunique"), clips=("clips", "sum"))
    why = why.sort_values(["clips", "reason"], ascending=[False, True])
    why = why.assign(**why[["videos", "clips"]].map("{:,}".format))
    tables = [Table("Why videos were replaced", why, 1)] if len(why) else []
    if len(windows):
        tables.append(Table("Global batches that were left out", windows[:MOST_WINDOWS], 3))
    return Section("Data left out", words, tables=tables)
