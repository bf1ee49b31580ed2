"""From YAML layers to a dataclass, with the origin of every value.

Layers are merged in this order, later ones win, and every leaf remembers where it came from:

    default  <  recipe  <  cluster profile  <  --set a.b=value  <  named flag

Of two keys that exclude each other (lr and blr) the one of the later layer counts, and `replacements` says so. An unknown
key is an error that names the file, the line and the nearest valid keys.

The conversion stays by hand: with cattrs it takes 90 lines for 79, because every error text needs its own hook, and of two
errors in a section it names that of the field, not that of the file, which comes first. It imports in 33 ms and converts a
recipe in 0.07 ms for 0.15 ms here. msgspec (14 ms) takes unknown keys silently, and the 1e-4 that YAML reads as text only
together with 1 for true. pydantic costs 121 ms at import and OmegaConf 82 ms, of the 1.5 s that a launcher may take.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from vidmae.settings.command_line import nearest as nearest
from vidmae.settings.schedule import EITHER, Duration

T = TypeVar("T")
INSTEAD = "which takes the place of"  # of an origin: the value is null because another layer gives the other of two keys
_LEAVES = (str, int, float, bool, type(None))
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's writes the same, and a thousand files in a second


class ConfigError(ValueError):
    """What a user wrote in a recipe, a profile or a flag cannot be used; the message says where and what would do."""


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse a value, with what is allowed and the flag that changes it."""
    if not ok:
        raise ConfigError(f"{key} is {value!r}, allowed: {allowed} (change it with --set {key}=...)")


def unsigned(default: Any) -> Any:
    """A field that may change without making it another experiment: it stays out of the run's signature."""
    return field(default=default, metadata={"signature": False})


def signed_if_changed(default: Any) -> Any:
    """A field of a later version that makes another experiment: at its default it stays out of the run's signature, so
    that runs of before keep theirs."""
    return field(default=default, metadata={"signature": "if changed"})


@dataclass(frozen=True)
class Layer:
    """One source of values.

    Attributes:
        origin: What is shown beside the value, such as `recipe demo.yaml` or `--set`.
        values: Nested mapping as YAML gives it.
        lines: Dotted key to line number, where the source is a file.
    """

    origin: str
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """The origin, with the line of `key` where it is known."""
        return f"{self.origin}:{self.lines[key]}" if key in self.lines else self.origin


def read_yaml(path: Path, origin: str | None = None) -> Layer:
    """Read a YAML file as a layer, keeping line numbers.

    Raises:
        ConfigError: The file is missing, is not YAML, holds no mapping or names a key twice.
    """
    origin = origin or str(path)
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error
    if node is None:
        return Layer(origin, {})
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{origin} must hold `key: value` lines, not {type(node).__name__}")
    lines: dict[str, int] = {}
    _collect_lines(node, "", origin, lines)
    try:
        return Layer(origin, loader.construct_document(node), lines)
    except ValueError as error:  # a day that is not in the calendar
        raise ConfigError(f"{origin} is not valid YAML: {error}") from error


def _collect_lines(node: yaml.Node, prefix: str, origin: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{prefix}{key.value}"
            if dotted in lines:
                raise ConfigError(f"{origin}:{key.start_mark.line + 1}: {dotted} stands twice, first in line "
                                  f"{lines[dotted]}")
            lines[dotted] = key.start_mark.line + 1
            _collect_lines(value, f"{dotted}.", origin, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines[f"{prefix}{i}"] = value.start_mark.line + 1
            _collect_lines(value, f"{prefix}{i}.", origin, lines)


def parse_set(items: Sequence[str], origin: str = "--set") -> list[Layer]:
    """Turn `a.b=value` items into one layer each; values are read as YAML.

    Raises:
        ConfigError: An item has no `=` or its value is not YAML.
    """
    layers = []
    for item in items:
        key, eq, text = item.partition("=")
        if not eq or not key.strip():
            raise ConfigError(f"{origin} {item!r} is not of the form section.key=value")
        try:
            value: Any = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"{origin} {item!r}: the value is not valid YAML: {error}") from error
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        layers.append(Layer(origin, value))
    return layers


def build(cls: type[T], layers: Sequence[Layer]) -> tuple[T, dict[str, str]]:
    """Merge layers over the defaults of a dataclass.

    Args:
        cls: The schema.
        layers: From the weakest to the strongest.
    Returns:
        The instance, and for every leaf (dotted key) the origin of its value.
    Raises:
        ConfigError: An unknown key, a value of the wrong type or out of range.
    """
    tree: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _merge(tree, layer.values, "", layer, origins)
    config = _construct(cls, tree, "", origins)
    provenance = {key: origins.get(key, "default") for key in flatten(config)}
    return config, provenance


def replacements(origins: Mapping[str, str]) -> list[str]:
    """A line for each value that gave way to one of another key."""
    return [origin for origin in origins.values() if INSTEAD in origin]


def _merge(tree: Any, values: Mapping[str, Any], prefix: str, layer: Layer, origins: dict[str, str]) -> None:
    if isinstance(tree, dict):
        _make_way(tree, values, prefix, layer, origins)
    for raw_key, value in values.items():
        key = str(raw_key)
        dotted = f"{prefix}{key}"
        slot: Any = key
        if isinstance(tree, list):
            if not key.isdigit() or int(key) >= len(tree):
                raise ConfigError(f"{layer.where(dotted)}: {dotted}: {key!r} is no index of a list of {len(tree)}")
            slot = int(key)
        present = tree[slot] if isinstance(tree, list) or slot in tree else None
        if isinstance(value, Mapping):
            if not isinstance(present, (dict, list)):
                tree[slot] = present = {}
            _merge(present, value, f"{dotted}.", layer, origins)
        else:
            tree[slot] = copy.deepcopy(value)
            for stale in [k for k in origins if k.startswith(f"{dotted}.")]:
                del origins[stale]
        _stamp(value, dotted, layer, origins)


def _make_way(tree: dict[str, Any], values: Mapping[str, Any], prefix: str, layer: Layer, origins: dict[str, str]) -> None:
    """Of keys that exclude each other, let the one that this layer gives replace the one of a weaker layer."""
    for key, other in (*EITHER, *(pair[::-1] for pair in EITHER)):
        if values.get(key) is not None and other not in values and tree.get(other) is not None:
            was = f"{prefix}{other} {tree[other]} [{_origin_of(prefix + other, origins)}]"
            tree[other] = None
            origins[prefix + other] = f"{layer.where(prefix + key)} gives {key} {values[key]}, {INSTEAD} {was}"


def _stamp(value: Any, dotted: str, layer: Layer, origins: dict[str, str]) -> None:
    """Note where `value` came from: every leaf, and a section where it is first named."""
    if isinstance(value, Mapping):
        origins.setdefault(dotted, layer.where(dotted))
        for key, inner in value.items():
            _stamp(inner, f"{dotted}.{key}", layer, origins)
        return
    origins[dotted] = layer.where(dotted)
    if isinstance(value, list):
        for i, inner in enumerate(value):
            _stamp(inner, f"{dotted}.{i}", layer, origins)


def _origin_of(key: str, origins: Mapping[str, str]) -> str:
    """The origin of a key or of the nearest section around it."""
    while key:
        if key in origins:
            return origins[key]
        key = key.rpartition(".")[0]
    return "default"


def _construct(cls: type[T], tree: Any, prefix: str, origins: Mapping[str, str]) -> T:
    where = origins.get(prefix.rstrip("."), "")
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'the file'} must hold `key: value` lines, not {tree!r}")
    hints = _hints(cls)  # type: ignore[arg-type]
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    kwargs = {}
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if key not in names:
            meant = nearest(key, names, prefix) or _deeper(str(key), cls, prefix)
            raise ConfigError(f"{_origin_of(dotted, origins)}: unknown key {dotted!r}{meant}; valid here: "
                              f"{', '.join(names)}")
        kwargs[key] = _convert(value, hints[key], dotted, origins)
    try:
        return cls(**kwargs)
    except ConfigError as error:
        raise ConfigError(f"{error}{_blame(str(error), origins)}") from error
    except ValueError as error:
        raise ConfigError(f"{where + ': ' if where else ''}{prefix.rstrip('.')}: {error}") from error


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Annotations as types; to find them anew for every file takes two thirds of the time of `build`."""
    return typing.get_type_hints(cls)


def _deeper(key: str, cls: Any, prefix: str) -> str:
    """`, did you mean ...?` for a key that stands in a section further down: `lr` is train.phases.0.lr."""
    leaves = [leaf.name for leaf in leaves_of(cls) if "." in leaf.name]
    last = {name.rpartition(".")[2] for name in leaves}
    close = [key] if key in last else difflib.get_close_matches(key, last, n=1, cutoff=0.8)
    fit = [prefix + name for name in leaves if close and name.rpartition(".")[2] == close[0]]
    return f", did you mean {' or '.join(fit)}?" if fit else ""


@dataclass(frozen=True)
class Leaf:
    """One setting of a schema: its dotted name, the section that it is a field of, its annotation, whether it is signed."""

    name: str
    section: Any
    field: dataclasses.Field[Any]
    hint: Any
    signed: bool


def leaves_of(schema: Any, prefix: str = "", signed: bool = True) -> Iterator[Leaf]:
    """All settings of a schema, in its order; of a list of sections those of its first entry."""
    for each in dataclasses.fields(schema):
        hint = _hints(schema)[each.name]
        counts = signed and each.metadata.get("signature", True)
        entry = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        section, dotted = (entry, f"{each.name}.0") if dataclasses.is_dataclass(entry) else (hint, each.name)
        if dataclasses.is_dataclass(section) and section is not Duration:
            yield from leaves_of(section, f"{prefix}{dotted}.", counts)
        else:
            yield Leaf(prefix + each.name, schema, each, hint, counts)


def _blame(message: str, origins: Mapping[str, str]) -> str:
    key = message.split(" ", 1)[0]
    return f" [from {origins[key]}]" if key in origins and "[from" not in message else ""


def _convert(value: Any, hint: Any, key: str, origins: Mapping[str, str]) -> Any:
    """`value` as the annotated type, or a ConfigError that says what is allowed."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)

    def refuse(allowed: str) -> ConfigError:
        return ConfigError(f"{_origin_of(key, origins)}: {key} is {value!r}, allowed: {allowed}")

    if dataclasses.is_dataclass(hint) and hint is not Duration:
        return _construct(hint, value if value is not None else {}, f"{key}.", origins)  # type: ignore[arg-type]
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        refused = []
        for each in (a for a in args if a is not type(None)):
            try:
                return _convert(value, each, key, origins)
            except ConfigError as error:
                refused.append(str(error).rpartition("allowed: ")[2])
        raise refuse(" or ".join(refused))
    if origin is Literal:
        if any(value == a and type(value) is type(a) for a in args):
            return value
        raise refuse(", ".join(map(str, args)))
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise refuse("a list")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(v, args[0], f"{key}.{i}", origins) for i, v in enumerate(value))
        if len(value) != len(args):
            raise refuse(f"a list of {len(args)}")
        return tuple(_convert(v, a, f"{key}.{i}", origins) for i, (v, a) in enumerate(zip(value, args, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise refuse("`key: value` lines")
        return {str(k): _convert(v, args[1], f"{key}.{k}", origins) for k, v in value.items()}
    if hint is Duration:
        try:
            return Duration.parse(str(value))
        except ValueError as error:
            raise ConfigError(f"{_origin_of(key, origins)}: {key}: {error}") from error
    if hint is bool:
        if isinstance(value, bool):
            return value
        raise refuse("true or false")
    if hint in (int, float):
        number = _number(value)
        if number is None or (hint is int and number != int(number)):
            raise refuse("a whole number" if hint is int else "a number")
        return hint(number)
    if hint is str:
        if isinstance(value, (Mapping, list)) or value is None:
            raise refuse("text")
        return str(value)
    raise AssertionError(f"no rule for {hint} of {key}")


def _number(value: Any) -> float | int | None:
    """`value` as a finite number; YAML 1.1 reads 1e-4 as text, so text that is a number counts."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return (value if isinstance(value, int) else number) if abs(number) < float("inf") else None


def to_dict(config: Any, *, signed_only: bool = False) -> dict[str, Any]:
    """A configuration as plain nested values, in the order of the schema.

    Args:
        config: A configuration dataclass.
        signed_only: Leave out the fields that do not make it another experiment.
    """
    out: dict[str, Any] = {}
    for name, signed, default in fields_of(type(config)):  # type: ignore[arg-type]
        value = getattr(config, name)
        if not signed_only or (value != default if signed == "if changed" else signed):
            out[name] = value if type(value) in _LEAVES else plain(value, signed_only=signed_only)
    return out


@functools.cache
def fields_of(cls: Any) -> list[tuple[str, Any, Any]]:
    """Name, signature (see `unsigned`) and default of each field; sweeps ask for those of a hundred thousand cells."""
    return [(f.name, f.metadata.get("signature", True), f.default) for f in dataclasses.fields(cls)]


def plain(value: Any, *, signed_only: bool = False) -> Any:
    """One value of a configuration as `to_dict` has it."""
    if isinstance(value, Duration):
        return str(value)
    if dataclasses.is_dataclass(value):
        return to_dict(value, signed_only=signed_only)
    if isinstance(value, (list, tuple)):
        return [plain(v, signed_only=signed_only) for v in value]
    return value


def flatten(config: Any) -> dict[str, Any]:
    """Dotted key to leaf value; lists of plain values are leaves, lists of sections are indexed."""
    out: dict[str, Any] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                walk(v, f"{prefix}.{k}" if prefix else str(k))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, v in enumerate(value):
                walk(v, f"{prefix}.{i}")
        else:
            out[prefix] = value

    walk(to_dict(config), "")
    return out


def to_yaml(config: Any) -> str:
    """A configuration as YAML that `load` reads back to an equal one."""
    return yaml.dump(to_dict(config), Dumper=DUMPER, sort_keys=False, allow_unicode=True)


def load(cls: type[T], path: Path) -> T:
    """Read a resolved configuration, such as a run folder's config.yaml."""
    return build(cls, [read_yaml(path)])[0]
