"""Who is told how a run or an array ended (--notify), and which part of that is a secret.

    mail, mail:ADDRESS     Slurm's own mail, to the user who submits or to an address
    webhook:URL            POST of {"text": "..."} to an https address: Slack, Mattermost, Rocket.Chat and the like
    webhook:FILE           the same; the address is the first line of a file
    webhook                the same; the address is in the variable VIDMAE_WEBHOOK
    command:WORDS          a program, which gets the line on its standard input; no shell

The address of a webhook is a secret: who knows it can write there. It is kept in a file that only its owner can read, and
stands in no record, log or batch script. With webhook:URL it is in the list of processes while the command runs;
webhook:FILE and the variable keep it out of that. A profile is copied into every run, so it names a file.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vidmae.settings.layers import ConfigError

MAIL, WEBHOOK, COMMAND = "mail", "webhook", "command"
VARIABLE = "VIDMAE_WEBHOOK"
FLAG = "--notify"
MASKED = f"{FLAG}=***"
ALLOWED = f"{MAIL}, {MAIL}:ADDRESS, {WEBHOOK} (with {VARIABLE}), {WEBHOOK}:URL, {WEBHOOK}:FILE or {COMMAND}:WORDS"
HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Notify:
    """Who is told.

    Attributes:
        mail: Address that Slurm writes to, empty for that of the user; None: Slurm writes no mail.
        webhooks: Addresses; secrets.
        commands: Words of programs.
    """

    mail: str | None = None
    webhooks: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def sends(self) -> bool:
        """Whether the job itself has something to send at its end."""
        return bool(self.webhooks or self.commands)

    def __repr__(self) -> str:
        """Without addresses."""
        return f"Notify({'mail, ' * (self.mail is not None)}{len(self.webhooks)} webhooks, {len(self.commands)} commands)"


def check_way(way: str) -> None:
    """Whether a way can be one.

    Raises:
        ConfigError: It cannot; the message does not repeat an address.
    """
    kind, colon, what = way.partition(":")
    if kind == MAIL and (not colon or ("@" in what and not what.startswith("-") and what.isprintable() and " " not in what)):
        return
    if kind == WEBHOOK and (not colon or what):
        if "://" in what and (problem := problem_of(what)):
            raise ConfigError(f"{FLAG} {WEBHOOK}: {problem}")
        return
    if kind == COMMAND and _words(what):
        return
    shown = f"{kind}{colon}..." if kind in (MAIL, WEBHOOK, COMMAND) and what else repr(kind)
    raise ConfigError(f"{FLAG} {shown} is no way to tell somebody, allowed: {ALLOWED}")


def problem_of(url: str) -> str:
    """Why an address of a webhook cannot be used, without the address; nothing where it can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return "the address cannot be read as one"
    if not host or not url.isprintable() or " " in url:
        return "the address has no host, or a character that no address has"
    if parts.scheme == "https" or (parts.scheme == "http" and host in HERE):
        return ""
    return f"the address begins with {parts.scheme}://, allowed: https:// (http:// only for {', '.join(HERE)})"


def resolve(ways: Sequence[str]) -> Notify:
    """The ways, with the addresses that they mean.

    Raises:
        ConfigError: An address is not to be found, or cannot be used.
    """
    mail, webhooks, commands = None, list[str](), list[tuple[str, ...]]()
    for way in ways:
        check_way(way)
        kind, _, what = way.partition(":")
        if kind == MAIL:
            mail = what
        elif kind == WEBHOOK:
            webhooks.append(_address(what))
        else:
            commands.append(tuple(_words(what)))
    return Notify(mail, tuple(dict.fromkeys(webhooks)), tuple(dict.fromkeys(commands)))


def _address(what: str) -> str:
    if "://" in what:
        return what
    if what:
        where = f"{FLAG} {WEBHOOK}:{what}"
        try:
            url = Path(what).expanduser().read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{where} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    else:
        where, url = f"{FLAG} {WEBHOOK} with the variable {VARIABLE}", os.environ.get(VARIABLE, "")
        if not url:
            raise ConfigError(f"{FLAG} {WEBHOOK} needs the address in the variable {VARIABLE}, which is not set; or give "
                              f"{WEBHOOK}:FILE")
    if problem := problem_of(url):
        raise ConfigError(f"{where}: {problem}")
    return url


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def without_addresses(argv: Sequence[str]) -> list[str]:
    """A command line for the record: the value of --notify becomes ***, since the record is no place for an address. So it
    is in the flags of another command that stand in quotes."""
    found, skip = list[str](), False
    for word in argv:
        if skip:
            skip = False
        elif word == FLAG or word.startswith(f"{FLAG}="):
            found.append(MASKED)
            skip = word == FLAG
        else:
            found.append(_without_inner(word) if FLAG in word else word)
    return found


def _without_inner(word: str) -> str:
    """A word that holds --notify somewhere: a value after `=`, or the flags of another command."""
    key, equals, value = word.partition("=")
    if equals and not re.search(r"\s", key):
        return f"{key}={without_addresses([value])[0]}"
    try:
        words = shlex.split(word)
    except ValueError:
        return word.partition(FLAG)[0] + MASKED
    return word if words == [word] else shlex.join(without_addresses(words))
