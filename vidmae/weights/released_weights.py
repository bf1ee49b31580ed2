"""What is published: names of weights, where their files are, what they were trained on. Facts are in published.yaml.

    published()["hvm1@448_none"].repo       eminorhan/hvm-1
    entry_of("vit_hvm1@448_none")           the same: the author's own names begin with the kind of model

No torch here: launchers look names up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vidmae.settings.layers import nearest

FACTS = Path(__file__).with_name("published.yaml")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Published:
    """One published model.

    Attributes:
        name: What it is called here.
        group: Whose it is, such as `hvm-1`.
        title: The same in words.
        files: Its file in the repository; where there are several names, the first that exists.
        repo: Of the hub, `owner/name`; empty where it is not there.
        url: Of a file that is not on the hub; empty where it is.
        source: Page of its authors.
        paper: Where it is described.
        licence: As its source states it, or unknown.
        trained_on: Its pretraining data.
        tuned_on: Of a finetuned model the task, else empty.
        classes: Of its head; 0: none.
        sampling: How its clips were cut.
        sizes: What is known of the model beside its tensors: name, img_size, num_frames, t_patch_size.
        settings: What its tensors do not say, as `model.key=value`.
        md5_start: The first digits of the file's MD5 where they are published, else empty.
    """

    name: str
    group: str
    title: str
    files: tuple[str, ...]
    source: str
    trained_on: str
    repo: str = ""
    url: str = ""
    paper: str = UNKNOWN
    licence: str = UNKNOWN
    tuned_on: str = ""
    classes: int = 0
    sampling: str = UNKNOWN
    sizes: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    md5_start: str = ""

    @property
    def address(self) -> str:
        """Where the file is, for people."""
        return self.url or f"https://huggingface.co/{self.repo}/resolve/main/{self.files[0]}"


@cache
def published() -> Mapping[str, Published]:
    """All of them by name."""
    groups = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    return {entry.name: entry for group in groups for entry in _entries(group)}


def entry_of(name: str) -> Published | None:
    """The model of a name, also with `mae_` or `vit_` before it as in the author's names; None where there is none."""
    return published().get(name) or published().get(re.sub("^(mae|vit)_", "", name))


def unknown_name(name: str) -> str:
    """What to say of a name that is none."""
    return f"no published weights are called {name!r}{nearest(name, list(published()))} (python jobs/weights.py list)"


def _entries(group: Mapping[str, Any]) -> Iterator[Published]:
    common = {key: group[key] for key in ("group", "title", "source", "paper", "licence", "sampling") if key in group}
    common["settings"] = tuple(group.get("settings", ()))
    for data, facts in group.get("data", {}).items():
        facts = facts if isinstance(facts, dict) else {"trained_on": facts}
        sizes = {**group["sizes"], **facts.get("sizes", {})}
        for tuned, classes in group["tuned"].items():
            yield Published(
                **common, name=f"{facts.get('name', data)}_{tuned}", files=(group["rule"].format(data=data, tuned=tuned),),
                repo=group["repo"], trained_on=facts["trained_on"], tuned_on="" if tuned == "none" else tuned,
                classes=classes, sizes=sizes)
    for name, facts in group.get("files", {}).items():
        url = facts.get("url", "")
        files = (url.rpartition("/")[2],) if url else tuple(facts.get("names", group.get("names", ())))
        more = {key: facts[key] for key in ("licence", "classes", "md5_start", "trained_on") if key in facts}
        yield Published(**{**common, **more}, name=name, files=files, url=url, repo=facts.get("repo", group.get("repo", "")),
                        sizes={**group.get("sizes", {}), **facts.get("sizes", {})})
