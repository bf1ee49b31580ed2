"""Folders that a demo makes anew: it removes no file of anybody else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def refuse_others(folders: Iterable[Path], own: str) -> None:
    """Refuse folders that hold something else than what a demo writes; nothing is removed here.

    Args:
        folders: They need not be there.
        own: Regular expression of the path of a file in its folder, such as `7/0042.png`.
    Raises:
        FileExistsError: There are other files; says how many.
    """
    for folder in folders:
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        if others := sum(not re.fullmatch(own, name) for name in files):
            raise FileExistsError(f"{folder} would be made anew, and {others} of its {len(files)} files are not of this "
                                  "command; change --out, or move them away")
