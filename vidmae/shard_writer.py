"""Shards on their way to disk: copied to host memory at once, then written, hashed and flushed in one pass.

A writer never raises: a full disk is a fact that all ranks must learn together (`checkpoint.Saver` gathers them).
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

CHUNK = 2**24  # bytes hashed and written at a time; larger would change nothing, Linux writes at most 2 GiB at once


def host_copy(state: Any) -> Any:
    """A copy of a state that no later step changes: tensors in host memory, every other value copied too."""
    return copy.deepcopy(state, {id(t): t.detach().to("cpu", copy=True) for t in _tensors(state)})


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


class ShardWriter:
    """Writes this rank's shards of one checkpoint.

    Args:
        folder: What the names are below; its folders are there.
        shards: File name -> state, or the file's bytes. Emptied on the way, so that memory is free as early as it can be.
        background: Write in a thread and return at once; else return when all is on disk.
    Attributes:
        files: Name -> `bytes` and `blake2b` of each file, complete when no longer `busy`.
        problem: Why it could not be written, with the file's name; None where all went well.
    """

    def __init__(self, folder: Path, shards: dict[str, Any], *, background: bool) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.problem: str | None = None
        self._folder, self._shards = folder, shards
        self._thread = Thread(target=self._write, name="checkpoint")
        self._thread.start()
        if not background:
            self.wait()

    @property
    def busy(self) -> bool:
        """Something is still to be written."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Return when everything is on disk or has failed."""
        self._thread.join()

    def _write(self) -> None:
        while self._shards and self.problem is None:
            name, state = self._shards.popitem()
            try:
                self.files[name] = write_state(self._folder / name, state)
            except Exception as error:  # whatever it is, the other ranks wait to hear of it
                self.problem = f"{name}: {error}"
        self._shards.clear()


def write_state(path: Path, state: Any) -> dict[str, Any]:
    """Write one state so that `torch.load` reads it, or bytes as they are; flushed to disk.

    Returns:
        `bytes` and `blake2b` of the file.
    Raises:
        OSError: It cannot be written.
    """
    torch.serialization.set_crc32_options(False)  # the hash covers it, and crc32 would hold Python's lock meanwhile
    with path.open("wb", buffering=0) as file:
        path.chmod(0o600)
        sink: Any = _Sink(file.fileno())
        if isinstance(state, bytes):
            sink.write(state)
        else:
            torch.save(state, sink)
        if sink.error is not None:
            raise sink.error
        os.fsync(file.fileno())
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
