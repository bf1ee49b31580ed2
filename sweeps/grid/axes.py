"""The axes of a grid: what `--vary section.key=value,value` means. Pure text."""

from __future__ import annotations

from collections.abc import Sequence

from vidmae.settings.layers import ConfigError

OPENS, CLOSES = "[{(", "]})"


def read_axes(items: Sequence[str]) -> dict[str, list[str]]:
    """The values of each key, in the order in which they were given; commas in brackets or in quotes do not separate.

    Args:
        items: Of --vary, `key=v1,v2` each.
    Raises:
        ConfigError: An item has no values, or a key stands twice.
    """
    axes: dict[str, list[str]] = {}
    for item in items:
        key, _, text = item.partition("=")
        values = split_values(text)
        if not key.strip() or not all(values):
            raise ConfigError(f"--vary {item!r} is not of the form section.key=value,value")
        if key.strip() in axes:
            raise ConfigError(f"--vary {key.strip()} stands twice; give all of its values in one: {key.strip()}=v1,v2")
        axes[key.strip()] = values
    return axes


def split_values(text: str) -> list[str]:
    """The values between the commas that stand outside of brackets and quotes."""
    values, depth, quote = [""], 0, ""
    for letter in text:
        if letter == "," and not depth and not quote:
            values.append("")
            continue
        values[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not values[-1][:-1].strip(" " + OPENS):
            quote = letter  # at the beginning of a value; elsewhere it is an apostrophe
        else:
            depth += (letter in OPENS) - (letter in CLOSES)
    return [value.strip() for value in values]
