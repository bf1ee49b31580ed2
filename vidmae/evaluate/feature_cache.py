"""The cache of frozen features on disk: extracted once, found again by the content of a recording.

    features/say-3f2a...-1b5c9d0e/    one folder for each (weights, what else changes a feature)
      spec.json                       in words what the features are; what is asked for must be equal
      a91c...f2.npy                   a shard of about 500 clips: a structured array of `content` and `features`
      lock.json                       the job that extracts now (vidmae/evaluate/extract.py)

A shard is named by the hash of its bytes and appears whole. So shards of several ranks or jobs never collide, one that was
damaged is found when it is first used and its clips are missing again, and an interrupted extraction goes on where it was.
Features come back as float32; those of tokens are memory-mapped, so that more of them than memory can be trained on.

joblib's Memory (installed with scikit-learn) keeps the result of a whole call under a hash of its arguments: cells that
share some clips would extract them again, and two jobs at once would extract the same.

Letters: N clips, V views of a clip, D width, T H W token grid.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidmae.runs.cost import conv_like
from vidmae.runs.record import make_private_folder, read_json, write_atomic, write_json
from vidmae.settings.finetune_config import FinetuneConfig

SCHEMA = 1
NOWHERE = -1
HASH_BYTES = 16
ADDED = {  # to the specs after folders had been written, and what is usual
    "inflated": "no", "positions": "learned", "net": "vit", "temporal_positions": True}


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that changes a feature. Equal specs share a folder.

    Attributes:
        weights: Content hash of the weights, or the seed of random ones.
        kind: `pooled`, the vector that a head sees, or `tokens`, a grid of token vectors.
        model, img_size, num_frames, t_patch_size: The encoder.
        pool: How a vector is pooled; empty for tokens.
        token_grid: T, H, W of the tokens; None for pooled.
        embed_dim: D.
        sampling_rate, target_fps, decoder: How a clip is read.
        view: Which part of a recording is looked at.
        precision: Arithmetic of the encoder.
        inflated: How an image model became one of several frames.
        positions: How the encoder knows where a token is.
        net: vit, or conv of the FLOPs of this encoder.
        temporal_positions: The encoder has a table of time.
    """

    weights: str
    kind: Literal["pooled", "tokens"]
    model: str
    img_size: int
    num_frames: int
    t_patch_size: int
    pool: str
    token_grid: tuple[int, int, int] | None
    embed_dim: int
    sampling_rate: int
    target_fps: float
    decoder: str
    precision: str
    view: str = "center"
    inflated: str = "no"
    positions: str = "learned"
    net: str = "vit"
    temporal_positions: bool = True
    schema: int = SCHEMA

    @property
    def record(self) -> dict[str, Any]:
        """As JSON holds it; without what was added later, where it is as usual, so that older folders stay valid."""
        record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {key: value for key, value in record.items() if ADDED.get(key) != value}

    @property
    def folder_name(self) -> str:
        """`<weights>-<8 hex digits of all the rest>`."""
        digest = hashlib.blake2b(json.dumps(self.record, sort_keys=True).encode(), digest_size=4).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9._-]', '_', self.weights)}-{digest}"

    @property
    def views(self) -> int:
        """V, views of a clip: 6 for `2x3`."""
        times, x, crops = self.view.partition("x")
        return int(times) * int(crops) if x else 1

    @property
    def row(self) -> np.dtype[Any]:
        """One clip of a shard; of several views each has its tokens."""
        if self.token_grid is None:
            return np.dtype([("content", "<u8"), ("features", "<f4", (self.embed_dim,))])
        tokens = (math.prod(self.token_grid), self.embed_dim)
        return np.dtype([("content", "<u8"), ("features", "<f2", tokens if self.views == 1 else (self.views, *tokens))])


def feature_spec(config: FinetuneConfig) -> FeatureSpec:
    """What the features of a cell are.

    Args:
        config: Of the cell, with method linear, knn, attentive or cluster.
    Raises:
        ValueError: The token grid of an attentive probe does not fit into the encoder's, or its heads do not divide the
            width, or the weights have no content.
    """
    model, data, shape, tokens = config.model, config.data, config.model.shape(), config.method == "attentive"
    grid = config.probe.token_grid
    if config.train.init and not config.train.init_content:
        raise ValueError(f"train.init is {config.train.init}, but train.init_content is empty; the launcher fills it in")
    if tokens and model.net == "conv":
        raise ValueError("method is attentive, which learns from tokens, and model.net conv has none; allowed: finetune, "
                         "linear, knn, cluster (--method, or leave conv out of --checkpoints)")
    if tokens and any(kept > there for kept, there in zip(grid, shape.grid, strict=True)):
        raise ValueError(f"probe.token_grid {list(grid)} (time, height, width) is larger than the encoder's grid "
                         f"{list(shape.grid)}; allowed: 1 to that in each place (--set probe.token_grid='[...]')")
    if tokens and config.probe.blocks:
        check_heads(shape.embed_dim, config.probe.heads)
    return FeatureSpec(
        weights=config.train.init_content or f"scratch-seed{config.seed}", kind="tokens" if tokens else "pooled",
        model=model.name, img_size=model.img_size, num_frames=model.num_frames, t_patch_size=model.t_patch_size,
        pool="" if tokens else model.pool, token_grid=grid if tokens else None,
        embed_dim=conv_like(shape).features if model.net == "conv" else shape.embed_dim,
        sampling_rate=data.sampling_rate, target_fps=data.target_fps, decoder=data.decoder, precision=config.train.precision,
        inflated=config.train.inflated, positions=model.positions, net=model.net,
        temporal_positions=model.temporal_positions, view=config.probe.views if tokens else "center")


def check_heads(dim: int, heads: int) -> None:
    """ValueError where the attention heads of a probe with blocks do not divide the width of the encoder."""
    if dim % heads:
        fit = [n for n in range(1, dim + 1) if dim % n == 0]
        near = [max(n for n in fit if n < heads), *(n for n in fit if n > heads)][:2]
        raise ValueError(f"probe.heads is {heads}, which does not divide the width {dim} of the encoder; nearest: "
                         f"{' or '.join(map(str, near))} (--set probe.heads=N)")


@dataclass(frozen=True)
class FeatureRows:
    """Features of chosen clips, in the order they were asked for, read from the disk when they are indexed.

    Attributes:
        shape: Of one clip: [D], [T*H*W, D] or of several views [V, T*H*W, D].
    """

    shape: tuple[int, ...]
    _shards: tuple[np.ndarray, ...]
    _shard: np.ndarray
    _row: np.ndarray

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, index: slice | np.ndarray | tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """float32 [n, *shape] of the clips that a slice or an array of places names; of places and the view of each, that
        view alone is read."""
        index, view = index if isinstance(index, tuple) else (index, None)
        shard, row = self._shard[index], self._row[index]
        out = np.empty((len(shard), *(self.shape if view is None else self.shape[1:])), dtype=np.float32)
        for number in np.unique(shard):
            places = np.flatnonzero(shard == number)
            features = self._shards[number]["features"]
            out[places] = features[row[places]] if view is None else features[row[places], view[places]]
        return out


class FeatureStore:
    """The features of one spec. Many processes may read and add at once.

    Args:
        root: Folder of all features (probe.features).
        spec: Of these.
        say: Takes a line for the log.
    Attributes:
        folder: Where they lie.
    Raises:
        ValueError: The folder holds features of another spec.
    """

    def __init__(self, root: Path, spec: FeatureSpec, say: Callable[[str], object] = print) -> None:
        self.spec, self._say = spec, say
        self.folder = make_private_folder(root / spec.folder_name)
        self._shards: dict[str, np.ndarray] = {}
        self._contents: dict[str, np.ndarray] = {}  # in memory: on the disk they lie far apart
        self._whole: set[str] = set()
        self._check_spec(self.folder / "spec.json")

    @property
    def lock(self) -> Path:
        """The job that extracts now."""
        return self.folder / "lock.json"

    def missing(self, contents: np.ndarray) -> np.ndarray:
        """Which clips have no features yet.

        Args:
            contents: uint64 [N], content hashes.
        Returns:
            Places in `contents`, int64, ascending; of equal contents the first.
        """
        shard, _, _ = self._find(contents)
        places = np.flatnonzero(shard == NOWHERE)
        _, first = np.unique(contents[places], return_index=True)
        return places[np.sort(first)]

    def add(self, contents: np.ndarray, features: np.ndarray) -> None:
        """Write a shard.

        Args:
            contents: uint64 [n].
            features: Floating [n, D] or [n, T*H*W, D].
        Raises:
            ValueError: Features are NaN or infinite.
        """
        shard = np.empty(len(contents), dtype=self.spec.row)
        with np.errstate(over="ignore"):
            shard["content"], shard["features"] = contents, features
        _check_finite(shard["features"])
        data = io.BytesIO()
        np.lib.format.write_array(data, shard, allow_pickle=False)
        write_atomic(self.folder / f"{_hash(data.getbuffer())}.npy", data.getvalue())

    def rows(self, contents: np.ndarray) -> FeatureRows:
        """Features of these clips, left on the disk until they are indexed.

        Args:
            contents: uint64 [N].
        Raises:
            ValueError: Some are missing.
        """
        shard, row, shards = self._find(contents)
        if gone := int((shard == NOWHERE).sum()):
            raise ValueError(f"{self.folder} lacks the features of {gone} of {len(contents)} clips; they were removed or "
                             "damaged meanwhile: run the cell again")
        return FeatureRows(self.spec.row["features"].shape, shards, shard, row)

    def read(self, contents: np.ndarray) -> np.ndarray:
        """Features of these clips in memory, float32 [N, D] or [N, T*H*W, D]; ValueError where some are missing."""
        return self.rows(contents)[:]

    def _check_spec(self, path: Path) -> None:
        there = read_json(path)
        if there is None:
            write_json(path, self.spec.record)
        elif there != self.spec.record:
            differ = sorted(k for k in there.keys() | self.spec.record.keys() if there.get(k) != self.spec.record.get(k))
            raise ValueError(f"{self.folder} holds other features: {', '.join(differ)} differ; remove the folder, or take "
                             "another with --set probe.features=FOLDER")

    def _find(self, contents: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Shard (NOWHERE: none) and row of every clip, and the shards. Those that hold any of them are whole."""
        self._open_new()
        while True:
            names = sorted(self._shards)
            shard, row = _look_up(contents, [self._contents[name] for name in names])
            unseen = [names[i] for i in np.unique(shard[shard != NOWHERE]) if names[i] not in self._whole]
            damaged = [name for name in unseen if not self._is_whole(name)]
            self._whole.update(unseen)
            if not damaged:
                return shard, row, tuple(self._shards[name] for name in names)
            self._drop(damaged)

    def _open_new(self) -> None:
        damaged = []
        for path in self.folder.glob("*.npy"):
            if path.name not in self._shards:
                try:
                    shard = np.load(path, mmap_mode="r", allow_pickle=False)
                    if shard.dtype != self.spec.row or shard.ndim != 1:
                        raise ValueError("other columns")
                    self._shards[path.name], self._contents[path.name] = shard, shard["content"].copy()
                except FileNotFoundError:  # another process has dropped it
                    continue
                except (ValueError, EOFError):  # cut, or something else
                    damaged.append(path.name)
        self._drop(damaged)

    def _is_whole(self, name: str) -> bool:
        try:
            return _hash(np.memmap(self.folder / name, mode="r")) == Path(name).stem
        except FileNotFoundError:  # another process has dropped it
            return False

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._say(f"{self.folder / name} is damaged; its clips will be extracted again")
            self._shards.pop(name, None)
            self._contents.pop(name, None)
            self._whole.discard(name)
            (self.folder / name).unlink(missing_ok=True)


def _look_up(contents: np.ndarray, shards: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Shard and row of every content; of several the first."""
    if not any(map(len, shards)):
        return np.full(len(contents), NOWHERE), np.zeros(len(contents), dtype=np.int64)
    known, first = np.unique(np.concatenate(shards), return_index=True)
    shard = np.repeat(np.arange(len(shards)), [len(s) for s in shards])[first]
    row = np.concatenate([np.arange(len(s)) for s in shards])[first]
    place = np.minimum(np.searchsorted(known, contents), len(known) - 1)
    return np.where(known[place] == contents, shard[place], NOWHERE), row[place]


def _hash(data: Any) -> str:
    return hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest()


def _check_finite(features: np.ndarray) -> None:
    bad = int((~np.isfinite(features).all(axis=tuple(range(1, features.ndim)))).sum())
    if bad:
        raise ValueError(f"the features of {bad} of {len(features)} clips are NaN or too large; are the weights whole? "
                         "With --set train.precision=fp32 they may be finite")
