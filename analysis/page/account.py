"""The sections of a run's page on what it cost: where its seconds went, and which data it had to leave out."""

from __future__ import annotations

from collections import Counter

from analysis.page.charts import bar
from analysis.page.dossier import Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet, duration, moment, number
from vidmae.runs.attempts import PARTS, totals

MOST_WINDOWS = 50


def seconds(run: Dossier) -> Section:
    """Where the seconds of all attempts went."""
    title = "Where the seconds went"
    if not run.attempts:
        return Section(title, ["There is no account of attempts (attempts.json)."])
    spent, ranks = totals(run.attempts), run.result.get("world_size") or (run.record.get("plan") or {}).get("world_size")
    whole = sum(spent[part] for part in PARTS)
    good = "not known before the first step" if spent["goodput"] is None else f"{100 * spent['goodput']:.1f} %"
    words = [f"Goodput, the share of the seconds that went into steps done for the first time: {good}."]
    if ranks:
        words.append(f"GPU-hours (rank-hours where there are no GPUs): {number(whole * ranks / 3600)}.")
    rows = [[part.removesuffix("_s"), duration(spent[part]), f"{100 * spent[part] / whole:.1f}" if whole else "--"]
            for part in PARTS]
    rows += [["in the queue between attempts", duration(spent["between_s"]), "--"]]
    shares = bar(f"Shares of {duration(whole)}", [(part.removesuffix("_s"), spent[part]) for part in PARTS])
    return Section(title, words, bar=shares, tables=[
        Table("All attempts", ("part", "h:mm:ss", "share, %"), rows, 1), attempts(run)])


def attempts(run: Dossier) -> Table:
    """Every start of the job."""
    rows = [[str(place), discreet(a.job_id), moment(a.started), run.ended(a) or "running, failed or killed",
             duration(a.updated - a.started), f"{a.first_step:,}", f"{a.last_step:,}", f"{a.repeated_steps:,}",
             f"{a.slowest_save_s:.1f}"] for place, a in enumerate(run.attempts, 1)]
    columns = ("attempt", "job", "started", "ended", "h:mm:ss", "steps before", "steps after", "repeated", "slowest save, s")
    return Table("Attempts", columns, rows, 4, folded=len(rows) > 20)


def left_out(run: Dossier) -> Section:
    """Videos that could not be read, and global batches that were left out."""
    words = [f"Videos that could not be read and were replaced: {len({s.row for _, s in run.replaced})}.",
             f"Global batches left out after NaN or infinity: {len({number(w.get('window')) for w in run.left_out})}."]
    tables = []
    if run.replaced:
        videos = Counter(reason for _, reason in {(s.row, discreet(s.reason)) for _, s in run.replaced})
        clips = Counter[str]()
        for _, s in run.replaced:
            clips[discreet(s.reason)] += s.clips
        reasons = sorted(clips, key=lambda reason: (-clips[reason], reason))
        rows = [[reason, f"{videos[reason]:,}", f"{clips[reason]:,}"] for reason in reasons]
        tables.append(Table("Why videos were replaced", ("reason", "videos", "clips"), rows, 1))
    if run.left_out:
        rows = [[number(w.get("window")), discreet(w.get("why")), moment(w.get("time"))]
                for w in run.left_out[:MOST_WINDOWS]]
        tables.append(Table("Global batches that were left out", ("window", "why", "when"), rows, 3))
    return Section("Data left out", words, tables=tables)
