"""The settings that vary over a grid of pretraining runs, and what each combination is called in names and tables.

    data.order=age, data.clip=frozen        order.age-clip.frozen
    data.age_months=[6, 14]                 age_months.6_14
    data.sources=[{name: s, hours: 10}]     sources.s_hours10
    recipe=pretrain_s_vith14_decoder50      recipe.pretrain_s_vith14_decoder50

The last part of a key is enough where no other varying key has the same. Keys come in the order of the schema, so names do
not depend on the order of the flags.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from vidmae.settings.command_line import nearest
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, leaves_of

DECIDED = {"seed": "--repeats", "name": "--name", "data.name": "--data", "data.manifest": "--data"}
"""Keys that the grid itself sets, and where that is said."""
RECIPE = "recipe"
"""Not a setting: other recipes, such as controls that have a name."""
LENGTH = re.compile(r"train\.phases(\.\d+\.duration)?")
"""Keys that say how long a run is."""
LONGEST = 40  # letters of a value in a name


@dataclass(frozen=True)
class Variant:
    """A combination of settings.

    Attributes:
        settings: Key, value as YAML, and the value as it is shown, of all that vary; in the order of the schema.
        words: What a name says of them.
    """

    settings: tuple[tuple[str, str, str], ...] = ()
    words: tuple[str, ...] = ()

    @property
    def items(self) -> list[str]:
        """As --set takes them."""
        return [f"{key}={value}" for key, value, _ in self.settings if key != RECIPE]

    @property
    def recipe(self) -> str | None:
        """In place of that of --recipe."""
        return next((value for key, value, _ in self.settings if key == RECIPE), None)

    @property
    def shown(self) -> dict[str, str]:
        """Key and value as tables show them."""
        return {key: shown for key, _, shown in self.settings}


def make_variants(axes: Mapping[str, Sequence[str]], *, lengths: bool) -> list[Variant]:
    """All combinations, the last axis changing fastest.

    Args:
        axes: Key to its values as YAML.
        lengths: Whether settings may say how long a run is; else runs are matched.
    Raises:
        ConfigError: A key is not known or does not make another experiment, or has no two different values.
    """
    places = {RECIPE: -1, **{leaf.name: place for place, leaf in enumerate(leaves_of(PretrainConfig))}}
    for key, values in axes.items():
        _refuse(key, values, lengths=lengths)
    keys = sorted(axes, key=lambda key: (min(place for name, place in places.items() if _is_in(name, key)), key))
    short = Counter(key.rpartition(".")[2] for key in keys)
    called = {key: last if short[last := key.rpartition(".")[2]] == 1 else key for key in keys}
    texts = {key: dict(zip(axes[key], value_words([_read(key, value) for value in axes[key]]), strict=True)) for key in keys}
    return [Variant(tuple((key, value, texts[key][value]) for key, value in zip(keys, values, strict=True)),
                    tuple(f"{called[key]}.{texts[key][value]}" for key, value in zip(keys, values, strict=True)))
            for values in itertools.product(*(axes[key] for key in keys))]


def _refuse(key: str, values: Sequence[str], *, lengths: bool) -> None:
    leaves = {leaf.name: leaf for leaf in leaves_of(PretrainConfig)}
    if key in DECIDED:
        raise ConfigError(f"--vary {key} is not allowed: {DECIDED[key]} decides it")
    inside = [leaf for name, leaf in leaves.items() if _is_in(name, key)]
    if not inside and key != RECIPE:
        raise ConfigError(f"--vary {key}: there is no such setting{nearest(key, list(leaves))}; vidmae/settings/README.md "
                          "has all")
    if key != RECIPE and not any(leaf.signed for leaf in inside):
        raise ConfigError(f"--vary {key} is not allowed: it does not change what is learned, so all of its runs would be "
                          f"one (--set {key}=...)")
    if LENGTH.fullmatch(key) and not lengths:
        raise ConfigError(f"--vary {key} says how long a run is, and --match makes all runs equally long; allowed with "
                          "--match none")
    known = [json.dumps(_read(key, value), default=str) for value in values]
    if len(values) < 2:
        raise ConfigError(f"--vary {key}={values[0]} has one value, allowed: two or more (--set {key}={values[0]} holds for "
                          "all runs)")
    if twice := [value for value, count in Counter(known).items() if count > 1]:
        raise ConfigError(f"--vary {key}: {twice[0]} stands twice")


def _is_in(name: str, key: str) -> bool:
    """Whether a setting is what a key means, or lies in it; places in lists count alike."""
    key = re.sub(r"\.\d+(?=\.|$)", ".0", key)
    return name == key or name.startswith(f"{key}.")


def _read(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--vary {key}={text}: the value is not valid YAML: {error}") from error


def value_words(values: Sequence[Any]) -> list[str]:
    """What each value of an axis is called: letters, digits, dot, dash and underscore; no two alike."""
    found = [re.sub(r"[^\w.-]+", "_", _word(value), flags=re.ASCII).strip("_") or "_" for value in values]
    return [word if found.count(word) == 1 and len(word) <= LONGEST else f"{word[:LONGEST]}_{_digest(value)}"
            for word, value in zip(found, values, strict=True)]


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "_".join(_word(v) if k == "name" else f"{k}{_word(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return "_".join(map(_word, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, default=str).encode(), digest_size=2).hexdigest()
