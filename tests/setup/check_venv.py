"""Refuse to re-point an environment that another clone uses: `VENV/bin/python tests/setup/check_venv.py` in a clone. Stdlib only.

`make VENV=<shared>` installs requirements.txt, whose `-e .` would make the environment run this clone's code from then on.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse


def installed_clone() -> Path | None:
    """The clone whose `-e .` this environment has; None where it has none, or that clone is gone."""
    try:
        origin = json.loads(metadata.distribution("vidmae").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        return None
    path = Path(unquote(urlparse(origin.get("url", "")).path))
    return path.resolve() if origin.get("dir_info", {}).get("editable") and (path / "pyproject.toml").is_file() else None


def main() -> int:
    """Run the check; 2 where another clone uses the environment."""
    mine, theirs = Path.cwd().resolve(), installed_clone()
    if theirs in (None, mine):
        return 0
    print(f"error: the environment {sys.prefix} runs the code of {theirs}, and `make` would let it run that of {mine}; take an "
          f"environment of this clone (leave out VENV, or give another one), or point it here: "
          f"{sys.prefix}/bin/pip install --editable {mine}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
