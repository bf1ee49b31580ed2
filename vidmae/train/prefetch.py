"""The next micro-batch on its way to the GPU while this one computes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import torch

from vidmae.clips.loader import Batch


class Prefetcher:
    """Micro-batches in order, each on the device when it is asked for.

        batch, waited_s = ahead.next()
        engine.backward(...)         # a GPU is busy from here on
        ahead.fetch()                # takes the next batch from the loader and copies it beside the computing

    Copies go through a stream of their own, from page-locked memory. On a CPU nothing is fetched ahead and nothing is
    copied: the loader's workers read ahead already.

    Args:
        loader: This rank's micro-batches.
        device: Where they are needed.
        ahead: Fetch ahead; None: on a GPU.
    """

    def __init__(self, loader: Iterator[Batch], device: torch.device, *, ahead: bool | None = None) -> None:
        self._loader, self._device = loader, device
        self._ahead = device.type == "cuda" if ahead is None else ahead
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._fetched: Batch | Exception | None = None
        self._waited_s = 0.0

    def next(self) -> tuple[Batch, float]:
        """The next micro-batch, and the seconds that this process has waited for it.

        Raises:
            StopIteration: There are no more.
            Exception: What the loader raised when the batch was fetched.
        """
        if self._fetched is None:
            self._fetch()
        found, self._fetched = self._fetched, None
        if isinstance(found, Exception):
            raise found
        assert found is not None
        if self._stream is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_stream(self._stream)
            for tensor in (found.clips, found.noise, found.labels):
                tensor.record_stream(current)
        return found, self._waited_s

    def fetch(self) -> None:
        """Begin with the next micro-batch; what goes wrong is raised when it is asked for. Seconds that a GPU computes
        meanwhile are not waited."""
        if not self._ahead or self._fetched is not None:
            return
        busy = torch.cuda.Event() if self._stream is not None else None
        if busy is not None:
            busy.record(torch.cuda.current_stream(self._device))
        self._fetch()
        if busy is not None and not busy.query():
            self._waited_s = 0.0

    def _fetch(self) -> None:
        asked = time.perf_counter()
        try:
            batch = next(self._loader)
        except Exception as error:
            self._fetched = error
            return
        self._waited_s = time.perf_counter() - asked
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            self._fetched = moved(batch, self._device)


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; rows stay in the host's memory."""
    clips, noise, labels = (t.to(device, non_blocking=True) for t in (batch.clips, batch.noise, batch.labels))
    return replace(batch, clips=clips, noise=noise, labels=labels)
