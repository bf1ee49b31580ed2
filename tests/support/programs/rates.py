"""Pretraining on a processor that multiplies as fast as the variable RATES says: `fp32 bf16` in FLOP/s."""

import os
import sys

from vidmae.ranks import precision
from vidmae.train import pretrain

precision.measured_rates = lambda ranks: dict(zip(("fp32", "bf16"), map(float, os.environ["RATES"].split()), strict=True))
main = pretrain.main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
