"""What a rank learns from, as JSON: `python -m tests.support.programs.shares RUN_FOLDER`; see tests/vidmae/labels/test_shares.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from vidmae.labels.cell_data import read_cell_data
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import load

if __name__ == "__main__":
    data = read_cell_data(load(FinetuneConfig, Path(sys.argv[1])))
    print(json.dumps([f"{content:016x}" for content in data.train.content.tolist()]))
