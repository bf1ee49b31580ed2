"""A matplotlib figure as files: one look, and the same bytes for the same numbers.

Colours are Okabe and Ito's, told apart by the colour-blind.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vidmae.runs.record import write_atomic

PALETTE = BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {"svg.hashsalt": "vidmae", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
              "axes.spines.right": False, "legend.frameon": False}


def write_figure(stem: Path, size_in: tuple[float, float], fill: Callable[[Figure], None]) -> list[Path]:
    """Write a figure as STEM.png and STEM.svg, the same bytes for the same numbers.

    Args:
        stem: The files without their suffix; the folder exists.
        size_in: Width and height in inches.
        fill: Draws into the empty figure.
    Returns:
        The files.
    """
    files = []
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasAgg(figure)
        fill(figure)
        for suffix, left_out in (("png", "Software"), ("svg", "Date")):
            data = io.BytesIO()
            figure.savefig(data, format=suffix, dpi=150, metadata={left_out: None})
            files.append(Path(f"{stem}.{suffix}"))
            write_atomic(files[-1], data.getvalue())
            figure.set_layout_engine("none")  # the layout is done, and the slowest part
    return files
