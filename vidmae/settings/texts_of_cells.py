"""Configurations and records that differ in a few values, as text: what one shares with the one before is not written anew.

The cells of a sweep are made by `dataclasses.replace` from one configuration, so they hold the same objects in most fields.
A hundred thousand of them would otherwise take minutes of a processor. The texts are those of `to_yaml` and of `json.dumps`,
to the character; a test compares them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import yaml

from vidmae.settings.layers import DUMPER, fields_of, plain
from vidmae.settings.schedule import Duration

_PLAIN = re.compile(r"[A-Za-z/][\w./%=+-]*", re.ASCII)
_RESOLVER = yaml.resolver.Resolver()
_TEXT = "tag:yaml.org,2002:str"
_SCALARS = (str, int, float, bool, type(None))


class Texts:
    """Writes one configuration or record after the other."""

    def __init__(self) -> None:
        self._yaml: dict[str, tuple[Any, str]] = {}  # where a field stands -> what it held last, and its lines
        self._signed: dict[str, tuple[Any, str]] = {}
        self._tuples: dict[str, tuple[Any, str]] = {}

    def yaml(self, config: Any) -> str:
        """The text of `to_yaml`."""
        return self._fields(config, "", 0)

    def _fields(self, section: Any, where: str, depth: int) -> str:
        known, lines = self._yaml, []
        for name, *_ in fields_of(type(section)):  # type: ignore[arg-type]
            value, at = getattr(section, name), f"{where}{name}."
            before = known.get(at)
            if before is None or before[0] is not value:
                if dataclasses.is_dataclass(value) and not isinstance(value, Duration):
                    text = f"{'  ' * depth}{name}:\n{self._fields(value, at, depth + 1)}"
                else:
                    text = _lines(name, value, depth)
                before = known[at] = value, text
            lines.append(before[1])
        return "".join(lines)

    def signed(self, config: Any, without: Collection[str] = ()) -> str:
        """The text that `json.dumps` makes of the signed settings with sorted keys and no spaces.

        Args:
            config: A configuration.
            without: Fields that are left out.
        """
        parts = []
        for name, signed, default in sorted(fields_of(type(config)), key=lambda f: f[0]):  # type: ignore[arg-type]
            value = getattr(config, name)
            if name in without or not (value != default if signed == "if changed" else signed):
                continue
            before = self._signed.get(name)
            if before is None or before[0] is not value:
                made = json.dumps(plain(value, signed_only=True), sort_keys=True, separators=(",", ":"))
                before = self._signed[name] = value, f"{json.dumps(name)}:{made}"
            parts.append(before[1])
        return f"{{{','.join(parts)}}}"

    def json(self, record: Mapping[str, Any]) -> str:
        """The text that `json.dumps` makes of a record with `indent=2`. Tuples are remembered, lists may change."""
        return self._json_of("", record, 0)

    def _json_of(self, where: str, value: Any, depth: int) -> str:
        newline, inner = "\n" + depth * "  ", "\n" + (depth + 1) * "  "
        if isinstance(value, Mapping) and value:
            parts, flat = [], dict[str, Any]()
            for key, each in value.items():
                if type(each) in _SCALARS:
                    flat[key] = each
                    continue
                if flat:
                    parts.append(_encoder(depth + 1)(flat)[1:-1])
                    flat = {}
                parts.append(f"{json.dumps(key)}: {self._json_of(f'{where}{key}.', each, depth + 1)}")
            if flat:
                parts.append(_encoder(depth + 1)(flat)[1:-1])
            return f"{{{inner}{f',{inner}'.join(parts)}{newline}}}"
        if not isinstance(value, (list, tuple)) or not value:
            return json.dumps(value, allow_nan=False)
        before = self._tuples.get(where)
        if type(value) is tuple and before and before[0] is value:
            return before[1]
        text = f"[{inner}{f',{inner}'.join(self._json_of(f'{where}.', each, depth + 1) for each in value)}{newline}]"
        self._tuples[where] = value, text
        return text


def joined(*objects: str) -> str:
    """The text of one object with the keys of several, none of which is empty. Each is a text of `Texts.json`."""
    return ",".join([objects[0][:-2], *(each[1:-2] for each in objects[1:])]) + "\n}"


@functools.cache
def _encoder(depth: int) -> Callable[[Any], str]:
    """Of the items of an object so deep, a line each. With `indent` it would not be the one that is written in C."""
    return json.JSONEncoder(separators=(",\n" + depth * "  ", ": "), allow_nan=False).encode


def _lines(name: str, value: Any, depth: int) -> str:
    """A field that is no section, as YAML below so many sections."""
    if type(value) is int or (type(value) is str and _is_plain(value)):
        return f"{'  ' * depth}{name}: {value}\n"
    nested: Any = {name: plain(value)}
    for _ in range(depth):  # not indented afterwards: a long text is folded by its column
        nested = {"x": nested}
    made: str = yaml.dump(nested, Dumper=DUMPER, sort_keys=False, allow_unicode=True)
    return "".join(made.splitlines(keepends=True)[depth:])


def _is_plain(text: str) -> bool:
    """Whether YAML writes a text as it is, and reads it back as a text."""
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return bool(_PLAIN.fullmatch(text)) and tag == _TEXT
