from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from analysis.tables.sheet import Sheet, to_console

TASKS = [(f"ssv2-{shots}shot", metric) for shots in (2, 10, 50) for metric in ("top-1", "top-5")]


def sheet(name: str) -> Sheet:
    columns = pd.MultiIndex.from_tuples([("", "model"), ("", "source"), *TASKS])
    rows = [[model, "runs", *(f"{number}{place}.75 ± 0.43 (3)" for place in range(6))] for number, model in ((3, name), (1, "scratch"))]
    shown = pd.DataFrame(rows, columns=columns)
    return Sheet("x", "Title", shown, 2, shown)


def printed(name: str, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(*to_console(sheet(name), None, width), sep="\n")
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120, 10_000])
@pytest.mark.parametrize("name", ["s-vith14", "s-vith14 finetune last center train.layer_decay=0.9"])
def test_a_table_fits_the_terminal_and_no_number_is_cut(name: str, width: int) -> None:
    text = printed(name, width)
    assert max(map(len, text.splitlines())) <= width
    if width > 40 or name == "s-vith14":
        assert all(f"{number}{place}.75 ± 0.43 (3)" in text for number in (1, 3) for place in range(6))
    if width == 10_000:
        assert text.count("model") == 1 and name in text


def test_every_part_of_a_folded_table_names_its_rows() -> None:
    text = printed("s-vith14", 80)
    assert text.count("s-vith14") == text.count("model") == 2
