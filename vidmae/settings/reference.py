"""Every setting of a recipe with its default and its meaning, as a page made from the schema.

    python -m vidmae.settings.reference > vidmae/settings/README.md     a test compares the page with this
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from vidmae.settings.command_line import SHORT_NAMES
from vidmae.settings.config import PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import leaves_of

HEAD = """# Settings of a recipe

Made from the schema by `python -m vidmae.settings.reference`; a change belongs into the docstrings of `config.py`,
`finetune_config.py` and `schedule.py`.

Each setting can stand in a recipe (YAML), or on the command line: `--set train.global_batch=128`. The learning rate is
`train.phases.0.lr`. A setting marked * does not make another experiment: a run keeps its id when it changes.
`--print-config` shows all values of a run, and where each comes from.

On the command line of `jobs/pretrain.py`, `sweeps/*.py` and `analysis/roofline.py` some settings have a short name, too
(`--set lr=5e-5 --set batch=128`):

"""
RATES = """Of `lr` and `blr` the one that is given last counts: `--set lr=1e-3` takes the place of a recipe's `blr`, and the
command says so.
"""
TITLES = {PretrainConfig: "Pretraining: `jobs/pretrain.py`", FinetuneConfig: "Cells of a sweep: `sweeps/fewshot.py`"}


def page() -> str:
    """The page, as Markdown."""
    common = [row for row in _rows(FinetuneConfig) if row in set(_rows(PretrainConfig))]
    shorts = [f"- `{short}`: `{key}`" for short, key in SHORT_NAMES.items()]
    parts = [HEAD + "\n".join(shorts) + "\n", RATES, *_table("Both", common)]
    for schema, title in TITLES.items():
        parts += _table(title, [row for row in _rows(schema) if row not in common])
    return "\n".join(parts)


def _table(title: str, rows: list[str]) -> list[str]:
    return [f"## {title}\n", "| setting | default | meaning |\n|---|---|---|", *rows, ""]


def _rows(schema: Any) -> Iterator[str]:
    """A line for each setting of a schema."""
    for leaf in leaves_of(schema):
        meaning = f"{_meanings(leaf.section)[leaf.field.name]}{_choices(leaf.hint)}".replace("|", "\\|")
        yield f"| `{leaf.name}`{'' if leaf.signed else ' *'} | {_shown(leaf.field)} | {meaning} |"


@cache
def _meanings(schema: Any) -> dict[str, str]:
    """What stands under each field, or under its name in Attributes; those of a base class count where there is none."""
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(schema)):
        if dataclasses.is_dataclass(each):
            found |= _of_attributes(inspect.getdoc(each) or "") | _under_fields(each)
    return found


def _under_fields(schema: Any) -> dict[str, str]:
    (node,) = ast.parse(inspect.cleandoc(inspect.getsource(schema))).body
    assert isinstance(node, ast.ClassDef)
    pairs = zip(node.body, node.body[1:], strict=False)
    return {str(one.target.id): " ".join(str(two.value.value).split()) for one, two in pairs
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            and isinstance(two, ast.Expr) and isinstance(two.value, ast.Constant)}


def _of_attributes(doc: str) -> dict[str, str]:
    text = doc.partition("Attributes:\n")[2]
    return {name: " ".join(meaning.split()) for name, meaning in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", text, re.M)}


def _choices(hint: Any) -> str:
    values = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    shown = [value for value in values if not (value is False and "off" in values)]  # YAML reads `off` as it
    return f" One of: {', '.join(map(str, shown))}." if shown else ""


def _shown(field: dataclasses.Field[Any]) -> str:
    factory = field.default_factory
    value = field.default if factory is dataclasses.MISSING else factory()
    if value in ("", None):
        return "-"
    text = str(list(value) if isinstance(value, tuple) else value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


if __name__ == "__main__":
    print(page(), end="")
