"""Shards on their way to disk: copied to host memory at once, then written, hashed and flushed in one pass, in a thread."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**24  # bytes hashed and written at a time; larger would change nothing, Linux writes at most 2 GiB at once


def host_copy(state: Any, *, pinned: bool = False) -> Any:
    """A copy of a state that no later step changes: tensors in host memory, every other value copied too.

    Args:
        state: Nested dicts, lists and values.
        pinned: Copy what lies on a GPU to pinned memory, all tensors at once: several times as fast, and torch keeps the
            memory for the next copy, so it is worth it for copies that are made often.
    """
    tensors = list(_tensors(state))
    copies = {id(t): _pinned(t.detach()) if pinned and t.is_cuda else t.detach().to("cpu", copy=True) for t in tensors}
    if pinned and any(t.is_cuda for t in tensors):
        torch.cuda.synchronize()
    return copy.deepcopy(state, copies)


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, which is there once the device is synchronized."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


class Background:
    """Something that a thread does. It never raises: a full disk is a fact that all ranks must learn together.

    Args:
        act: What to do.
        daemon: The process may end while it is done.
    Attributes:
        result: What `act` returned; None before and where it failed.
        problem: Why it failed, or None.
    """

    def __init__(self, act: Callable[[], Any], *, daemon: bool = False) -> None:
        self.result: Any = None
        self.problem: str | None = None
        self._act = act
        self._thread = Thread(target=self._run, name="checkpoint", daemon=daemon)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Not done yet."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Return when it is done."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self.result = self._act()
        except OSError as error:
            self.problem = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        except Exception as error:  # whatever it is, the other ranks wait to hear of it
            self.problem = f"{type(error).__name__}: {error}"


def write_shards(folder: Path, shards: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write this rank's shards of one checkpoint; all of it is on disk when this returns.

    Args:
        folder: What the names are below; its folders are there.
        shards: File name -> state, or the file's bytes. Emptied on the way, so that memory is free as early as it can be.
    Returns:
        Name -> `bytes` and `blake2b` of each file.
    Raises:
        OSError: One cannot be written; names the file.
    """
    files = {}
    while shards:
        name, state = shards.popitem()
        files[name] = _write(folder / name, state)
    return files


def _write(path: Path, state: Any) -> dict[str, Any]:
    torch.serialization.set_crc32_options(False)  # the hash covers it, and crc32 would hold Python's lock meanwhile
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
            sink: Any = _Sink(file.fileno())
            if isinstance(state, bytes):
                sink.write(state)
            else:
                torch.save(state, sink)
            if sink.error is not None:
                raise sink.error
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return {"bytes": sink.bytes, "blake2b": sink.digest.hexdigest()}


class _Sink:
    """What torch.save writes to. It keeps an error to itself: torch ends the process where a write raises twice."""

    def __init__(self, fd: int) -> None:
        self.digest, self.bytes = new_hash(), 0
        self.error: OSError | None = None
        self._fd = fd

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            for at in range(0, len(view) if self.error is None else 0, CHUNK):
                self._write(view[at:at + CHUNK])
        except OSError as error:
            self.error = error
        return len(view)

    def _write(self, chunk: memoryview) -> None:
        self.digest.update(chunk)
        self.bytes += len(chunk)
        while chunk:
            chunk = chunk[os.write(self._fd, chunk):]

    def flush(self) -> None:
        """Nothing is held back."""


def new_hash() -> Any:
    """The hash that COMPLETE holds of every file."""
    return hashlib.blake2b(digest_size=16)


def hash_file(path: Path) -> str:
    """The hash of a file's content."""
    digest = new_hash()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return str(digest.hexdigest())
