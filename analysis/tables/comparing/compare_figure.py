"""Training losses over epochs, a line for each run or log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from analysis.results.loss_curves import LossCurve
from analysis.tables.figure_files import PALETTE, write_figure

DASHES = ("-", "--", ":", "-.")  # after as many lines as there are colours


def draw(curves: Mapping[str, LossCurve], folder: Path) -> list[Path]:
    """Write compare-loss.png and compare-loss.svg; the folder exists.

    Args:
        curves: By letter of the run or log. One of a single epoch is drawn as a point.
        folder: Where to.
    Returns:
        The files.
    """

    def fill(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (letter, curve) in enumerate(curves.items()):
            dash = DASHES[place // len(PALETTE) % len(DASHES)]
            axes.plot(curve.loss.index, curve.loss, dash, color=PALETTE[place % len(PALETTE)], linewidth=1.2,
                      marker="o" if len(curve.loss) == 1 else "", markersize=4, label=f"{letter}: {curve.name}")
        axes.set(xscale="log", xlabel="epoch", ylabel="training loss, mean of an epoch")
        axes.legend(loc="upper right")

    return write_figure(folder / "compare-loss", (5.2, 3.4), fill)
