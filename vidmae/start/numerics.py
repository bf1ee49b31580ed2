"""The same numbers wherever an array happens to lie in memory: set for every process before torch is loaded.

Intel MKL, which multiplies matrices for torch on CPUs, chooses its kernel also by the alignment of the operands. On some
processors (seen: Intel Xeon and AMD Zen 5, both with AVX-512) two processes that compute the same then differ in the last
bits, since their allocators placed the arrays differently. `MKL_CBWR=AUTO,STRICT` takes the fastest kernels of the processor
that do not depend on alignment. Importing any part of this package sets it, so it holds for every rank, array task, reader
and test, and the processes that those start inherit it. A value that is set already stays.

Cost: within 1 % on AMD Zen 5, a float32 product as well as a training step of ViT-B's width (`python tests/bench/run.py
numerics` measures it on other processors). The setting `COMPATIBLE`, which also agrees between processors, takes twice the
time for a product.

What stays different all the same: another kind of processor, another number of threads or ranks, another micro-batch.
"""

from __future__ import annotations

import os

VARIABLE, SETTING = "MKL_CBWR", "AUTO,STRICT"


def fix_numerics() -> None:
    """Set it for this process and those that it starts. MKL reads it at its first product."""
    os.environ.setdefault(VARIABLE, SETTING)
