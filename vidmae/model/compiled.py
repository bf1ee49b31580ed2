"""The blocks of a model through torch.compile, for training steps.

Block by block and not the whole step. The blocks hold all but a few percent of the work, and one compilation serves all
blocks of a width: a ViT-H has 36 blocks of two widths. The gradients of a block are there as soon as its backward pass is
done, so their exchange between the ranks overlaps with the blocks before it. Names of parameters stay as they are,
evaluation stays eager, and what a compiled run saves an eager run can load.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

import torch
import torch._functorch.config as functorch
from torch import nn

from vidmae.model.blocks import Block

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def why_not(device: torch.device) -> str | None:
    """Why torch.compile cannot work for this device, or None."""
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++"] if device.type == "cpu" else \
                [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    if not any(name and shutil.which(name) for name in compilers):
        kind = "C++" if device.type == "cpu" else "C"
        return f"there is no {kind} compiler here (looked for {', '.join(filter(None, compilers))})"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def compile_blocks(model: nn.Module, *, graphs: bool = False, backend: str = "inductor") -> int:
    """Compile the training step of every block; what happens at its first step. Returns the number of blocks.

    A part that cannot be compiled whole is an error and not a slow step (fullgraph), and shapes are fixed (not dynamic).
    The compiler may compute again in the backward pass what a matrix product reads there: per token and channel a block then
    keeps 10 numbers, where the eager one keeps 12 and torch's own setting 16 (measured; under autocast 11, 14 and 32).

    With `graphs` a GPU records the kernels of each pass through a block once and replays them as one CUDA graph, which
    saves the time between short kernels. What a graph returns lies in memory that the next step writes again. Gradients
    live longer than that (they are exchanged beside the backward pass, and add up over micro-batches), so each is copied.

    Args:
        model: Any model with blocks.
        graphs: Replay CUDA graphs. Has not run on a GPU yet.
        backend: Of torch.compile; tests count graphs with `aot_eager`, which needs no compiler.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    functorch.ban_recompute_materialized_backward = False
    mode = "reduce-overhead" if graphs and backend == "inductor" else None
    both_branches = torch.compile(Block.both_branches, fullgraph=True, dynamic=False, backend=backend, mode=mode)
    for block in blocks:
        block.compiled = both_branches
    if graphs:
        model.register_forward_pre_hook(lambda *_: torch.compiler.cudagraph_mark_step_begin())
        # of all, not of the blocks alone: the gradient of the class token may be a view of what a block's graph gave
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.register_hook(torch.clone)
    return len(blocks)


def use_own_cache(local_rank: int) -> Path:
    """Let the compiler keep its files in a folder of this user and this rank of the node. Before the first compiled step.

    Ranks that compile the same at the same time do not wait for, or read, each other's half-written files, and nobody else
    can put code there. A job that comes back to the node finds what it compiled.

    Returns:
        The folder: under TORCHINDUCTOR_CACHE_DIR where that is set, else under the folder for temporary files.
    Raises:
        ValueError: The folder belongs to someone else or is open to others.
    """
    top = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir()) / f"vidmae-compiled-{os.getuid()}")
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = top.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ValueError(f"{top}, where compiled code is kept, is not a folder that you alone can write; remove it, or set "
                         f"{CACHE} to another folder (--set train.compile=false does without)")
    own = top / f"rank{local_rank}"
    own.mkdir(mode=0o700, exist_ok=True)
    os.environ[CACHE] = str(own)
    return own
