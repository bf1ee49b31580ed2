"""A page that shows clips and those most alike: one HTML file with its pictures inside, no names of files.

The pictures come from a process of vidmae/insight/thumbnails.py, which decodes; nothing here does.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "vidmae.insight.thumbnails"
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #111; background: #fff }
table { border-collapse: collapse; margin-bottom: 2em } td { padding: 4px 6px; vertical-align: top; max-width: 124px }
img, .none { width: 112px; height: 112px; display: block; border: 3px dotted #999 } .none { background: #ddd }
.same img, .same .none { border: 3px solid #0072B2 } .query img, .query .none { border: 3px solid #000 }
.query { padding-right: 2em } small { overflow-wrap: anywhere }
"""
LEGEND = ("First the clip that was looked for, then those most alike by cosine. Solid frame: of its class; dotted: of "
          "another or of none.")


@dataclass(frozen=True)
class Found:
    """A clip on the page: content hash, name of its class or empty, cosine or NaN of the one that was looked for."""

    content: int
    label: str
    cosine: float = float("nan")


def read_thumbnails(manifest: Path, contents: Iterable[int]) -> dict[int, str]:
    """A picture of each clip as base64 JPEG; clips that cannot be read have none.

    Raises:
        ValueError: The manifest cannot be used, or has none of the clips.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    wanted = "\n".join(f"{content:016x}" for content in sorted(set(contents)))
    done = subprocess.run([sys.executable, "-m", PROGRAM, str(manifest)], env=env, text=True, input=wanted,
                          capture_output=True)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"{PROGRAM} failed"])[-1].removeprefix("error: "))
    return {int(line["content"], 16): line["jpeg"] for line in map(json.loads, done.stdout.splitlines())}


def page(title: str, sections: Mapping[str, Sequence[Sequence[Found]]], pictures: Mapping[int, str]) -> str:
    """The page.

    Args:
        title: Its heading.
        sections: Heading -> rows, each the clip that was looked for and its neighbours.
        pictures: Of `read_thumbnails`.
    """
    parts = [f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
             f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><p>{LEGEND}</p>"]
    for heading, rows in sections.items():
        parts.append(f"<h2>{html.escape(heading)}</h2><table>")
        parts += ["<tr>" + "".join(_cell(found, row[0], pictures) for found in row) + "</tr>" for row in rows]
        parts.append("</table>")
    return "\n".join([*parts, "</html>", ""])


def _cell(found: Found, query: Found, pictures: Mapping[int, str]) -> str:
    kind = "query" if found is query else "same" if found.label and found.label == query.label else "other"
    data = pictures.get(found.content)
    picture = f"<img alt='' src='data:image/jpeg;base64,{data}'>" if data else "<span class='none'></span>"
    cosine = "" if found is query else f"<br>{found.cosine:.3f}"
    return f"<td class='{kind}' title='{found.content:016x}'>{picture}<small>{html.escape(found.label)}{cosine}</small></td>"
