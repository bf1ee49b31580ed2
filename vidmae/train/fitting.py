"""train.micro_batch auto: the most clips per forward pass that fit on the GPU, found by trial steps with the real model.

The trials go up through the numbers that share the global batch evenly. Each is a forward and a backward pass of black clips
on every rank by itself, without the other ranks, so one that runs out of memory keeps nobody waiting. What else will lie
there (gradients, master weights, AdamW's averages, buckets of the exchange) is added by calculation. All ranks take the
smallest of their answers. What a user is told where a number of their own does not fit stands here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vidmae.ranks.kernels import HALF
from vidmae.runs.plan import divisors
from vidmae.runs.step_time import BUCKET_NUMBERS
from vidmae.settings.config import TrainConfig

FULL = ("out of memory", "ALLOC_FAILED")  # libraries beside torch say so, each in its own words
USABLE = 0.92  # of the device's memory: NCCL, fragments and the allocator's rounding take the rest


class FullMemoryError(ValueError):
    """The memory of a GPU does not suffice; the message says what would do. A sweep knows it by its name in failure.json."""


def largest_that_fits(share: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of a rank's share of the batch that fits, tried from 1 up until the first that does not.

    Raises:
        FullMemoryError: Not even one clip fits; the message says what needs less memory.
    """
    best = 0
    for candidate in divisors(share):
        if not fits(candidate):
            break
        best = candidate
    if best == 0:
        raise FullMemoryError("train.micro_batch auto: not even 1 clip per forward pass fits on this GPU; less memory is "
                              "needed with --set model.activation_checkpointing=true, --set train.offload=optimizer, or "
                              "ZeRO 2 or 3 on more GPUs")
    return best


def is_full(error: BaseException) -> bool:
    """Whether an error means that the memory of a GPU does not suffice: of torch, or of cuBLAS, cuDNN or NCCL."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError)
                                                         and any(words in str(error) for words in FULL))


def too_large(micro_batch: int, error: BaseException) -> FullMemoryError:
    """A step does not fit in a GPU's memory: what to do."""
    less = f"allowed: less, such as {max(1, micro_batch // 2)}" if micro_batch > 1 else "and less is not possible"
    return FullMemoryError(
        f"train.micro_batch is {micro_batch} clips per rank and forward pass, which do not fit in the GPU's memory; {less} "
        f"(--set train.micro_batch={max(1, micro_batch // 2)}, or auto), or --set model.activation_checkpointing=true, "
        f"--set train.offload=optimizer, a higher train.zero_stage. torch says: {str(error).splitlines()[0]}")


def states_too_large(train: TrainConfig, error: BaseException) -> FullMemoryError:
    """Weights, gradients and optimizer alone do not fit in a GPU's memory: what to do."""
    moves = "" if train.offload == "optimizer" else "--set train.offload=optimizer, "
    return FullMemoryError(
        f"the states of training do not fit in the GPU's memory with train.zero_stage {train.zero_stage} and train.offload "
        f"{train.offload}; less is needed with {moves}a higher train.zero_stage on more GPUs, or a smaller model.name "
        f"(--dry-run shows the states of every stage). torch says: {str(error).splitlines()[0]}")


def training_bytes(parameters: int, train: TrainConfig, world_size: int, *, averages: bool = False) -> int:
    """Bytes on a GPU that training needs beside the weights that compute, the activations and, in stage 0, the gradients.

    Args:
        parameters: That learn.
        train: Its ZeRO stage, precision and offload count.
        world_size: Ranks.
        averages: A running average of the weights is kept.
    """
    average = 4 if averages else 0
    if train.zero_stage == 0:
        return (8 + average) * parameters  # AdamW's averages
    number = 4 if train.precision == "fp32" else 2
    states = 0 if train.offload == "optimizer" else (12 + average) * parameters // world_size
    gradients = number * parameters // (world_size if train.zero_stage >= 2 else 1)
    return states + gradients + 2 * number * BUCKET_NUMBERS


class Trial:
    """Says whether a forward and backward pass of so many clips fits on this GPU.

    Args:
        model: On the device; its training loss is what `inputs` is for.
        inputs: Makes what the model takes of so many clips.
        train: The recipe's section.
        world_size: Ranks.
        device: A GPU.
        averages: Training keeps a running average of the weights.
    """

    def __init__(self, model: nn.Module, inputs: Callable[[int], tuple[Any, ...]], train: TrainConfig, world_size: int,
                 device: torch.device, *, averages: bool = False) -> None:
        self._inputs, self._device = inputs, device
        half = HALF.get(train.precision)
        self._autocast = torch.autocast(device.type, dtype=half, enabled=half is not None and train.zero_stage == 0)
        self._model = model.to(device, half) if half is not None and train.zero_stage > 0 else model.to(device)
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._later_bytes = training_bytes(parameters, train, world_size, averages=averages)

    def fits(self, clips: int) -> bool:
        """Try it; the gradients of the trial count only where training keeps whole ones."""
        free, total = torch.cuda.mem_get_info(self._device)
        usable = USABLE * (free + torch.cuda.memory_reserved(self._device))
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            with self._autocast:
                loss = self._model(*self._inputs(clips))
            loss.backward()
            torch.cuda.synchronize(self._device)
            needed = torch.cuda.max_memory_allocated(self._device) + self._later_bytes
        except RuntimeError as error:
            if is_full(error):
                return False
            raise
        finally:
            loss = None
            self._model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return needed <= min(usable, USABLE * total)
