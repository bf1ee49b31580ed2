"""Takes out of a run's records what concerns a machine or a person: paths, hosts, accounts, addresses.

What stays: names of data sets, hashes, settings, numbers, commands and the ids of jobs. A path inside the folder of the runs
stays from there on (`runs/s-vith14-1a2b3c4d/weights.safetensors`). Of any other path the name stays where it is a manifest,
a table, a recipe or a file of weights (`removed/s.csv`), and nothing of it else: a file or a folder of footage may have the
name of a child.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REMOVED = "removed"
KEPT_NAMES = (".csv", ".json", ".yaml", ".yml", ".safetensors", ".pth", ".pt", ".pyth", ".bin")
"""Endings of files whose name may stay."""
_ENDINGS = r"\.(?:mp4|mov|avi|mkv|webm|m4v|mpe?g|mts|3gp|wmv|jpe?g|png|gif|bmp|tiff?|heic|tar)\b"
FOOTAGE = re.compile(r"[\w.-]{1,255}" + _ENDINGS, re.IGNORECASE)
"""A name of a video, a picture or an archive of them; no file has a longer one."""
_FOOTAGE_ENDS = re.compile(r"[\w.-]" + _ENDINGS, re.IGNORECASE)  # the same to a search, in linear time
_ALONE = ("host", "problem", "process_birth", "where")
"""Keys of submissions that say something of a machine alone."""
_SECRET_FLAGS = ("--account", "-A", "--nodelist", "-w", "--exclude", "-x", "--profile", "--sbatch", "--notify", "--stage",
                 "--about", "--reservation", "--job-name", "-J")
_SHORT = tuple(flag for flag in _SECRET_FLAGS if len(flag) == 2)  # whose value may stand right behind them
_PATH = re.compile(r"(?<![\w.:/])~?/[^\s'\",;:=()\[\]{}<>]*")
_ABSOLUTE = re.compile(r"(?<![\w.:/<])~?/\w[\w.-]*/\w")
_URL = re.compile(r"\b(?:https?|ftp|ssh|file|s3|gs)://\S*", re.IGNORECASE)
_NAME_BEGINS = re.compile(r"""['"].*|\S*[/\\]""" + "|" + FOOTAGE.pattern, re.IGNORECASE | re.DOTALL)
_SCRIPTS = ("jobs/", "sweeps/", "analysis/", "vidmae/")


@dataclass(frozen=True)
class Redaction:
    """What is private about the runs of an archive.

    Attributes:
        runs_dir: Folder of the runs, absolute.
        words: Names of hosts and of the user, which are taken out of commands wherever they stand alone.
    """

    runs_dir: Path
    words: Collection[str] = ()

    def record(self, value: Any) -> Any:
        """A JSON value without what is private: the same keys, but for those of machines."""
        if isinstance(value, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self._inner(key, inner)
                    for key, inner in value.items() if key not in _ALONE}
        if isinstance(value, list):
            return [self.record(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def _inner(self, key: str, value: Any) -> Any:
        if key == "command" and isinstance(value, list):
            return self.command(value)
        if key == "overrides" and isinstance(value, Mapping):
            return {name: self._argument(inner) if isinstance(inner, str) else inner for name, inner in value.items()}
        return self.record(value)

    def command(self, words: Sequence[str]) -> list[str]:
        """A command line: flags and settings, without the values of flags that name a place or a person."""
        found, before = list[str](), ""
        for word in words:
            flag, equals, _ = word.partition("=")
            if before in _SECRET_FLAGS:
                found.append(REMOVED)
            elif flag in _SECRET_FLAGS and equals:
                found.append(f"{flag}={REMOVED}")
            elif word.startswith(_SHORT) and word not in _SHORT:
                found.append(f"{word[:2]}{REMOVED}")
            else:
                found.append(self._argument(word))
            before = word
        return found

    def _argument(self, word: str) -> str:
        """A word of a command: what may be a path is one, also where it begins in the current folder."""
        key, equals, value = word.partition("=")
        several = re.search(r"\s-", value) and not value.startswith("-")  # flags of another command, not one of this
        if key and equals and not re.search(r"[/\s]", key) and not (several and key.startswith("-")):
            return f"{key}={self._argument(value)}"
        if re.search(r"\s", word) and not word.startswith(("[", "{")):
            try:
                words = shlex.split(word)
            except ValueError:
                return REMOVED
            if word.startswith("-") or any(one.partition("=")[0] in _SECRET_FLAGS for one in words):
                return shlex.join(self.command(words))  # the flags of another command, in quotes
        if "," in word and "://" in word:
            return ",".join(map(self._argument, word.split(",")))
        if "/" in word and not word.startswith((*_SCRIPTS, "[", "{", "-")) and "://" not in word:
            return self.path(word)
        return self.text(word)

    def path(self, word: str) -> str:
        """A path: from the runs on, or only a name that may stay."""
        path = Path(word)
        if path.is_absolute() and path.is_relative_to(self.runs_dir):
            return str(Path("runs") / path.relative_to(self.runs_dir))
        if not path.is_absolute() and path.parts[:1] == (self.runs_dir.name,):
            return word
        return f"{REMOVED}/{self.text(path.name)}" if path.suffix in KEPT_NAMES else REMOVED

    def text(self, text: str) -> str:
        """A text of any kind without paths and names of footage."""
        if text.startswith(("/", "~/")) and "\n" not in text:
            return self.path(text)  # as a whole: a path may have spaces
        found = FOOTAGE.sub(REMOVED, _PATH.sub(lambda found: self.path(found[0]), _URL.sub(REMOVED, text)))
        for name in self.words:
            found = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", REMOVED, found)
        return found

    def reason(self, text: str) -> str:
        """Why a recording was not read: the words before any path or name of footage, which may have spaces."""
        found = _NAME_BEGINS.search(text)
        return f"{self.text(text[:found.start()].rstrip())} {REMOVED}".lstrip() if found else self.text(text)


def private_paths(runs_dir: Path, more: Collection[str]) -> set[str]:
    """Absolute folders that must not stand in a file of code: the home folder, those of the runs and of manifests."""
    home = str(Path.home())
    return {path for path in (str(runs_dir), *more) if path.count("/") > 1} | ({home} if home != "/" else set())


def what_is_private(text: str, paths: Collection[str], *, names: bool) -> str:
    """What of a text should not be in an archive, in words that give nothing away; nothing where it may.

    Args:
        text: Of a file.
        paths: See `private_paths`.
        names: Names of footage count, too: of results, not of code.
    """
    if any(path in text for path in paths):
        return "it holds a path of this machine"
    if names and _FOOTAGE_ENDS.search(text):
        return "it holds what looks like the name of a video or picture"
    return "it holds an absolute path" if names and _ABSOLUTE.search(text) else ""
