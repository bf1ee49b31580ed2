"""The 16 everyday classes in which people and models are compared, and the classes of ImageNet-1k that belong to each.

Source: Geirhos et al. 2018 (arXiv 1808.08750); indices as in github.com/bethgelab/model-vs-human,
modelvshuman/helper/human_categories.py. An index is the rank of a WordNet id among the 1,000 ids in alphabetical order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_RANGES = {
    "airplane": "404", "bear": "294-297", "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145", "boat": "472 554 625 814 914",
    "bottle": "440 720 737 898-899 901 907", "car": "436 511 817", "cat": "281-286", "chair": "423 559 765 857",
    "clock": "409 530 892", "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385-386", "keyboard": "508 878", "knife": "499", "oven": "766", "truck": "555 569 656 675 717 734 864 867",
}
IMAGENET_CLASSES = 1000
_WORDNET_ID = re.compile(r"(n\d{8})(?: .*)?")


def _numbers(ranges: str) -> tuple[int, ...]:
    ends = [tuple(map(int, part.split("-"))) for part in ranges.split()]
    return tuple(number for end in ends for number in range(end[0], end[-1] + 1))


SIXTEEN: dict[str, tuple[int, ...]] = {name: _numbers(ranges) for name, ranges in _RANGES.items()}
"""Name of the class -> indices of its ImageNet classes, both in order."""


def class_key(name: str) -> str:
    """What a class is told from others by: the WordNet id of `n01440764 tench`, else the name."""
    match = _WORDNET_ID.fullmatch(name)
    return match[1] if match else name


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are the 1,000 classes of ImageNet-1k: as many WordNet ids, with names behind them or not, in order."""
    ids = len(classes) == IMAGENET_CLASSES and all(_WORDNET_ID.fullmatch(name) for name in classes)
    return ids and list(classes) == sorted(classes)
