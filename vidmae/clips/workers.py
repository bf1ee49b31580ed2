"""The processes that read ahead of whoever computes: how they start and end, and in which memory batches travel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vidmae.footage.killable import KillableFork, follow_parent


def empty_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a batch; in a worker the shared memory in which the batch travels.

    Batches on a worker's own heap are copied on their way and leave holes: it grew from 0.2 to 0.8 GiB in 600 clips.
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    memory = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(memory).view(shape)


def read_ahead(items: Dataset[Any], *, workers: int, prefetch: int = 2, pin_memory: bool = False) -> DataLoader[Any]:
    """All items in order, made by worker processes that end with the thread that iterates.

    Torch's global generator is left alone: whoever looks at a validation set in between trains on as if it had not.

    Args:
        items: Item i is the i-th batch, made with `empty_batch`.
        workers: Processes that read ahead; with 0 the caller waits for each item.
        prefetch: Items that each worker reads ahead.
        pin_memory: Hand over page-locked memory, for a GPU.
    """
    return DataLoader(
        items, batch_size=None, shuffle=False, generator=torch.Generator(),
        num_workers=workers, pin_memory=pin_memory, prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker, multiprocessing_context=KillableFork() if workers else None)


def _start_worker(_: int) -> None:
    """One thread per worker."""
    torch.set_num_threads(1)
    follow_parent()
