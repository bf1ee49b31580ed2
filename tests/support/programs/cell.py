"""Runs a cell on every rank and prints the exit code as JSON."""

from __future__ import annotations

import sys

import torch

from vidmae.train.cell import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(main(sys.argv[1]), flush=True)
