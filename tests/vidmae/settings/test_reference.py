from __future__ import annotations

import re
from pathlib import Path

from vidmae.settings import reference
from vidmae.settings.config import FootageConfig, PretrainConfig, SourceConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import flatten

PAGE = Path(reference.__file__).with_name("README.md")


def test_the_page_is_made_from_the_schema_as_it_is_now() -> None:
    assert PAGE.read_text() == reference.page(), "python -m vidmae.settings.reference > vidmae/settings/README.md"


def test_every_setting_stands_there_with_its_meaning() -> None:
    rows = re.findall(r"^\| `([\w.]+)`(?: \*)? \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.M)
    mixture = PretrainConfig(data=FootageConfig(sources=(SourceConfig("s"),)))  # of a list of sections the first is shown
    assert {*flatten(mixture), *flatten(FinetuneConfig())} == {name for name, _, _ in rows}
    assert all(len(meaning) > 10 for _, _, meaning in rows)
    defaults = {name: default for name, default, _ in rows}
    meanings = {name: meaning for name, _, meaning in rows}
    assert meanings["recovery.checks"].endswith("One of: off, warn, enforce.") and "True, False" in meanings["train.compile"]
    assert defaults["model.img_size"] == "`224`" and defaults["model.activation_checkpointing"] == "`false`"


def test_settings_that_are_not_signed_are_marked() -> None:
    marked = set(re.findall(r"^\| `([\w.]+)` \* \|", PAGE.read_text(), re.M))
    assert {"train.zero_stage", "log.every_s", "checkpoint.every_steps", "data.workers"} <= marked
    assert not {"train.global_batch", "model.mask_ratio", "train.phases.0.lr", "seed"} & marked
