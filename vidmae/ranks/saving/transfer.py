"""Copies of shards on their way from one rank to another, over a process group beside that of training.

What is sent for one copy: the length of its record, the record as JSON, then the bytes of its files, in the record's order
and in messages of at most CHUNK bytes. All copies that are under way advance by one message at a time, on every rank alike,
so that ranks which send and receive at once never wait for each other in a ring.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist

from vidmae.ranks.saving.memory_copies import Generation, NodeCopies
from vidmae.ranks.shard_writer import new_hash

CHUNK = 2**24  # bytes of a message
Messages = Iterator[Any]  # a send or a receive that has begun, one after the other
T = TypeVar("T")


def run_together(transfers: Iterable[Messages]) -> None:
    """Advance all transfers of this rank until they are done."""
    under_way = list(transfers)
    while under_way:
        works = [(each, work) for each in under_way if (work := next(each, None)) is not None]
        for _, work in works:
            work.wait()
        under_way = [each for each, _ in works]


def sending(group: Any, to_rank: int, folder: Path, record: Mapping[str, Any] | None) -> Messages:
    """Send a copy; None in place of its record: there is none to send, and the receiver learns that.

    A file that cannot be read is sent as something else, which the receiver sees from its hash.
    """
    header = json.dumps(record).encode() if record else b""
    yield torch_dist.isend(torch.tensor([len(header)]), to_rank, group=group)
    if not record:
        return
    yield torch_dist.isend(torch.tensor(list(header), dtype=torch.uint8), to_rank, group=group)
    buffer = torch.empty(CHUNK, dtype=torch.uint8)
    for name, seal in record["files"].items():
        try:
            fd: int | None = os.open(folder / name, os.O_RDONLY)
        except OSError:
            fd = None
        try:
            for at in range(0, seal["bytes"], CHUNK):
                part = buffer[:min(CHUNK, seal["bytes"] - at)]
                if fd is not None and os.preadv(fd, [part.numpy().data], at) < len(part):
                    part.zero_()
                yield torch_dist.isend(part, to_rank, group=group)
        finally:
            if fd is not None:
                os.close(fd)


class Receiving:
    """A copy that comes from another rank: written while it comes, hashed, and published where it is whole.

    What the disk refuses is kept until all of it has come, since the sender must not wait for ever.

    Args:
        group: The process group.
        from_rank: The rank that sends it.
        node: Where it is kept.
        generation: Which it belongs to.
        name: What it is kept as.
    Attributes:
        problem: Why it is not whole, once all is received; None where it is, and where the sender had none.
        whole: It is there.
    """

    def __init__(self, group: Any, from_rank: int, node: NodeCopies, generation: Generation, name: str) -> None:
        self.problem: str | None = None
        self.whole = False
        self._group, self._from = group, from_rank
        self._node, self._generation, self._name = node, generation, name

    def messages(self) -> Messages:
        """Receive it; see `run_together`."""
        length = torch.empty(1, dtype=torch.int64)
        yield torch_dist.irecv(length, self._from, group=self._group)
        if not int(length):
            return
        header = torch.empty(int(length), dtype=torch.uint8)
        yield torch_dist.irecv(header, self._from, group=self._group)
        record = json.loads(bytes(header.tolist()))
        folder = self._try(self._node.draft, self._generation, self._name, record["files"])
        buffer = torch.empty(CHUNK, dtype=torch.uint8)
        for name, seal in record["files"].items():
            digest = new_hash()
            fd = self._try(os.open, folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if folder else None
            for at in range(0, seal["bytes"], CHUNK):
                part = buffer[:min(CHUNK, seal["bytes"] - at)]
                yield torch_dist.irecv(part, self._from, group=self._group)
                data = part.numpy().data
                digest.update(data)
                if fd is not None and self.problem is None:
                    self._try(_write_all, fd, data)
            if fd is not None:
                os.close(fd)
            if digest.hexdigest() != seal["blake2b"]:
                self.problem = self.problem or f"{Path(name).name} has come with other content than was written"
        if self.problem is None:
            self._try(self._node.publish, self._generation, self._name, record)
        self.whole = self.problem is None

    def _try(self, act: Callable[..., T], *args: Any) -> T | None:
        try:
            return act(*args)
        except OSError as error:
            self.problem = self.problem or f"{error.filename or self._node.folder}: {error.strerror}"
            return None


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data):]
