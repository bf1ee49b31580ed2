"""Features of the clips of a manifest: `python -m vidmae.insight.embed OUT [--shard I/N]` on every rank.

OUT/config.yaml says what is asked for (embed_config.py), embeddings.py what is written. The files are dealt out to N shards
times the ranks of each; one that is there is not made again, whatever N was then, and whoever makes the last one writes
result.json. A feature depends neither on the number of ranks nor on which files were there.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vidmae.clips.view_loader import ViewBatch, pair_loader, refuse_unreadable
from vidmae.clips.views import ViewSpec
from vidmae.evaluate.extract import check_layers, layer_features, pooled_features
from vidmae.evaluate.predict import GIVE_UP
from vidmae.footage.manifest import Manifest, read_all
from vidmae.footage.manifest_columns import class_table
from vidmae.insight.embedding_files import KIND, Embeddings, file_path, joined, make_folder, read_file, rows_of_files
from vidmae.insight.sliding import window_pairs, windows_of
from vidmae.insight.token_files import open_tokens, tokens_beside, write_token_file
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.ranks import dist
from vidmae.ranks.program import EXIT_OK
from vidmae.ranks.shard_program import EXIT_INCOMPLETE, Say, run
from vidmae.runs.record import SCHEMA, job_id, read_json, write_json
from vidmae.settings.config import DataConfig
from vidmae.settings.layers import load
from vidmae.settings.programs.embed_config import EmbedConfig

TOKEN_TYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Looked:
    """What was seen in a batch: features, and tokens [n, K, L, D] where they are asked for."""

    features: Embeddings
    tokens: np.ndarray | None


class Embedding:
    """An encoder, and the clips that it looks at: the centre view of each recording, or windows that slide over it.

    Args:
        config: What is asked for.
        manifest: The videos.
        device: Where the encoder computes.
    Attributes:
        spec: What a clip is.
    Raises:
        ValueError: The weights hold no encoder of this suite, or it has no such layer.
    """

    def __init__(self, config: EmbedConfig, manifest: Manifest, device: torch.device) -> None:
        self.config, self._manifest, self._device = config, manifest, device
        trained = load_trained_encoder(config.weights, device=device, known=config.sizes)
        self.model, data = trained.model, trained.data or DataConfig()
        self.stride_from = ("--sampling-rate" if config.sampling_rate else
                            "that of training" if trained.data else "the paper's in training")
        shape = self.model.shape
        check_layers(config.layers, shape.depth)
        self.spec = ViewSpec(num_frames=shape.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                             target_fps=data.target_fps, img_size=shape.img_size)
        if config.window_s:  # so many frames within it, at any rate of the file
            self.spec = replace(self.spec, sampling_rate=1, target_fps=shape.num_frames / config.window_s,
                                every_s=config.every_s)
        self._pairs = pairs_of(config, manifest)

    def make(self, out: Path, files: dict[Path, range], say: Say) -> None:
        """Make some files.

        Args:
            out: The folder.
            files: Each file and its clips, places in `pairs_of`; all but the last have `clips_per_file`.
            say: Told how many clips are done.
        Raises:
            ValueError: Twenty videos of a file cannot be read: the disk may be gone; or features are not finite.
        """
        config, waiting = self.config, list(files.items())
        pairs = self._pairs[np.concatenate([np.arange(r.start, r.stop) for r in files.values()])]
        batches = [range(first, min(first + config.batch, len(pairs))) for first in range(0, len(pairs), config.batch)]
        loader = pair_loader(self._manifest, pairs, batches, self.spec, workers=config.workers, most_clips=config.batch,
                             read_limit_s=config.read_limit_s, read_retries=0, pin_memory=self._device.type == "cuda")
        make_folder(out)
        found: list[Looked] = []
        unreadable: dict[int, str] = {}
        lost: list[str] = []
        done = 0
        for places, batch in zip(batches, loader, strict=True):  # a file holds whole batches, so no batch has clips of two
            found.append(self._look(batch))
            why = dict(batch.unreadable)
            unreadable |= why
            lost += [why[row] for row in pairs[places.start:places.stop, 0].tolist() if row in why]
            done += len(places)
            say(f"{places.stop}/{len(pairs)} clips")
            path, wanted = waiting[0]
            if len(unreadable) >= GIVE_UP:
                refuse_unreadable(unreadable, len(wanted), gave_up=True)
            if done == len(wanted):
                if config.tokens:  # first: where the features are, all of the file is there
                    write_token_file(tokens_beside(path), [each.tokens for each in found if each.tokens is not None])
                joined([each.features for each in found]).write(path, lost)
                found, unreadable, lost, done = [], {}, [], 0
                del waiting[0]

    def _look(self, batch: ViewBatch) -> Looked:
        """The features of one batch; one that is not full is filled up, so that a feature does not hang on the others."""
        config, rows, shape = self.config, batch.rows, self.model.shape
        content, label = self._manifest.content[rows], self._manifest.class_index[rows].astype(np.int32)
        where = {"row": rows, "start_s": batch.view * config.every_s} if config.window_s else {}
        clips = batch.clips.to(self._device, non_blocking=True)
        if not len(rows):
            clips = clips.new_zeros((1, *self.spec.shape))  # of which nothing is kept
        filled, kept = clips[torch.arange(config.batch, device=self._device) % len(clips)], len(rows)
        if not config.layers and not config.tokens:
            cls, mean = pooled_features(self.model, filled, config.precision)
            return Looked(Embeddings(content, label, cls[:kept], mean[:kept], **where), None)
        asked = config.layers or (shape.depth,)
        all_layers = asked if shape.depth in asked else (*asked, shape.depth)
        seen = layer_features(self.model, filled, all_layers, config.precision,
                              tokens=TOKEN_TYPES[config.token_type] if config.tokens else None)
        last, first = all_layers.index(shape.depth), slice(len(asked))
        of_layers = {"layer_cls": seen.cls[:kept, first], "layer_mean": seen.mean[:kept, first]} if config.layers else {}
        return Looked(Embeddings(content, label, seen.cls[:kept, last], seen.mean[:kept, last], **of_layers, **where),
                      None if seen.tokens is None else seen.tokens[:kept, first])


def pairs_of(config: EmbedConfig, manifest: Manifest) -> np.ndarray:
    """Row and view of every clip that is looked at, int64 [P, 2], in the order of the files."""
    if not config.window_s:
        return window_pairs(np.ones(len(manifest), dtype=np.int64))
    return window_pairs(windows_of(manifest.seconds, config.window_s, config.every_s))


def embed(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Make this rank's files of one shard, and result.json where those were the last."""
    result = out / "result.json"
    if not result.exists():
        config = load(EmbedConfig, out / "config.yaml")
        manifest = Manifest.read(Path(config.manifest), config.manifest_content, decoder=config.decoder)
        ranks = dist.init(config.device)
        rows = rows_of_files(len(pairs_of(config, manifest)), config.clips_per_file)
        paths = [file_path(out, number, len(rows)) for number in range(len(rows))]
        mine = slice(shard * ranks.world_size + ranks.rank, None, shards * ranks.world_size)
        todo = {path: r for path, r in zip(paths[mine], rows[mine], strict=True) if not path.exists()}
        say = Say(say_every_s if ranks.is_main else None)
        say(f"{len(todo)} of this shard's {len(paths[mine])} files are missing", now=True)
        if todo:
            work = Embedding(config, manifest, ranks.device)
            say(describe(work), now=True)
            work.make(out, todo, say)
        ranks.barrier()
        if ranks.is_main and all(path.exists() for path in paths):  # else other shards are at work
            finish(out, config, paths)
        ranks.barrier()  # on every rank, whatever came of it: none may wait for one that has left
    return EXIT_INCOMPLETE if (read_json(result) or {}).get("unreadable") else EXIT_OK


def describe(work: Embedding) -> str:
    """What is about to be done, in one line."""
    spec, shape, config = work.spec, work.model.shape, work.config
    rate = (f"in windows of {config.window_s:g} s, one every {config.every_s:g} s" if config.window_s else
            f"at sampling rate {spec.sampling_rate} ({work.stride_from}), centre view")
    layers = f", layers {', '.join(map(str, config.layers))}" if config.layers else ""
    return (f"{shape.name}, {shape.img_size} px, {spec.num_frames} frames {rate}, {config.precision}{layers}"
            + (f", tokens as {config.token_type}" if config.tokens else ""))


def finish(out: Path, config: EmbedConfig, paths: list[Path]) -> None:
    """Write result.json; every file is there.

    Raises:
        ValueError: Not one clip could be read, or a file is damaged.
    """
    clips, width, unreadable = 0, 0, Counter[str]()
    for path in paths:
        found, reasons = read_file(path)
        clips, width = clips + len(found), found.cls.shape[1]
        unreadable.update(reasons)
    more = asked_for(config, out, paths)
    if not clips:
        raise ValueError(f"not one clip could be read: {'; '.join(f'{n} x {why}' for why, n in unreadable.items())}")
    write_json(out / "result.json", {
        "schema": SCHEMA, "kind": KIND, "weights_content": config.weights_content, "data": Path(config.manifest).stem,
        "content_sha256": config.manifest_content, "clips": clips, "embed_dim": width, "files": len(paths),
        "classes": class_names(Path(config.manifest)), "view": "center", "precision": config.precision,
        "unreadable": dict(unreadable), "job_id": job_id(), "finished": time.time(), **more})


def asked_for(config: EmbedConfig, out: Path, paths: list[Path]) -> dict[str, object]:
    """What result.json says of layers, tokens and windows, where they were asked for."""
    more: dict[str, object] = {"layers": list(config.layers)} if config.layers else {}
    if config.window_s:
        more |= {"view": "windows", "window_s": config.window_s, "every_s": config.every_s}
    if config.tokens:
        of_files = open_tokens(out, len(paths))
        more["tokens"] = {"clips": sum(map(len, of_files)), "shape": list(of_files[0].shape[1:]), "dtype": config.token_type}
    return more


def class_names(manifest: Path) -> dict[str, str]:
    """Name of every class by its index, as JSON has it; empty where no video has a label."""
    labels = sorted({row.label for row in read_all(manifest)[1]} - {""})
    return {str(index): label for index, label in zip(class_table(labels), labels, strict=True)}


def main(argv: list[str] | None = None) -> int:
    """Do this rank's part of this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read."""
    return run("vidmae.insight.embed", argv, embed)


if __name__ == "__main__":
    sys.exit(main())
