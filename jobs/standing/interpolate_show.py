"""What came of an interpolation, as tables for people: scores of every method, domains against each other, and where it
shows the objects of scenes."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = {"psnr_db": "PSNR dB", "ssim": "SSIM", "flow_error_px": "flow error px"}
FORMS = (".2f", ".3f", ".2f")


def show(record: dict[str, Any], console: Console) -> None:
    """The means of all clips, the model against each method, and what was left out."""
    table = Table(title=f"{record['mask']} mask, {record['hidden_tokens']} of {record['tokens']} tokens hidden, "
                        f"{record['clips']} clips of {record['clip_s']:.2f} s")
    for name in ("domain", "method"):
        table.add_column(name)
    for title in (*SHOWN.values(), "model is better by dB"):
        table.add_column(title, justify="right")
    for row in record["methods"]:
        if row["motion"] == "all":
            numbers = [f"{row[key]:{form}}" for key, form in zip(SHOWN, FORMS, strict=True)]
            table.add_row(row["domain"], row["method"], *numbers, _margin(record["differences"], row))
    console.print(table)
    show_domains(record.get("domains") or [], console)  # results of earlier code have none
    if record["tracking"]:
        show_tracking(record["tracking"], console)
    for name, count in record["short_videos"].items():
        if count:
            console.print(f"{name}: {count} videos are shorter than a clip ({record['clip_s']:.2f} s) and were left out "
                          "(a smaller --sampling-rate takes shorter ones)", style="yellow", highlight=False)
    for reason, count in record["unreadable"].items():
        console.print(f"{count} clips could not be read: {reason}", style="yellow", highlight=False, markup=False)


def show_domains(rows: list[dict[str, Any]], console: Console) -> None:
    """By how much more the model is above each method on the first domain than on each other one, in PSNR."""
    for other in dict.fromkeys(row["other"] for row in rows):
        shown = [row for row in rows if (row["other"], row["motion"], row["score"]) == (other, "all", "psnr_db")]
        domain = shown[0]["domain"]
        table = Table(title=f"model minus method, PSNR dB: {domain} ({shown[0]['recordings']} recordings) against {other} "
                            f"({shown[0]['other_recordings']}); 95 % over recordings, six or more")
        table.add_column("method")
        for title in (domain, other, f"{domain} minus {other}"):
            table.add_column(title, justify="right")
        for row in shown:
            table.add_row(row["baseline"], f"{row['difference']:.2f}", f"{row['other_difference']:.2f}",
                          f"{row['apart']:.2f}{_interval(row, '.2f')}")
        console.print(table)


def show_tracking(rows: list[dict[str, Any]], console: Console) -> None:
    """Where the objects of the tracking probe are, and whether each is there once: a table per mask."""
    for mask in dict.fromkeys(row["mask"] for row in rows):
        table = Table(title=f"tracking, {rows[0]['scenes']} scenes of each path, {mask} mask")
        for name in ("path", "method"):
            table.add_column(name)
        for name in ("error px", "places found", "found once %"):
            table.add_column(name, justify="right")
        for row in rows:
            if row["mask"] == mask:
                table.add_row(row["path"], row["method"], f"{row['error_px']:.1f}{_interval(row, '.1f')}",
                              f"{row['objects']:.2f}", f"{row['one_object_pct']:.0f}")
        console.print(table)


def _margin(differences: list[dict[str, Any]], row: dict[str, Any]) -> str:
    """By how much PSNR of the model is above a method's, with the interval where there is one."""
    found = next((d for d in differences if (d["domain"], d["motion"], d["baseline"], d["score"])
                  == (row["domain"], "all", row["method"], "psnr_db")), None)
    if found is None:
        return ""
    return f"{found['difference']:.2f}{_interval(found, '.2f')}"


def _interval(row: dict[str, Any], form: str) -> str:
    return "" if row["ci_low"] is None else f" [{row['ci_low']:{form}}, {row['ci_high']:{form}}]"
