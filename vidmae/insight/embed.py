"""Features of the clips of a manifest: `python -m vidmae.insight.embed OUT [--shard I/N]` on every rank.

OUT/config.yaml says what is asked for (embed_config.py), embeddings.py what is written. The files are dealt out to N shards
times the ranks of each; one that is there is not made again, whatever N was then, and whoever makes the last one writes
result.json. A feature depends neither on the number of ranks nor on which files were there.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from vidmae.clips.view_loader import ViewBatch, refuse_unreadable, view_loader
from vidmae.clips.views import ViewSpec
from vidmae.evaluate.extract import pooled_features
from vidmae.evaluate.predict import GIVE_UP
from vidmae.footage.manifest import Manifest, read_all
from vidmae.footage.manifest_columns import class_table
from vidmae.insight.embedding_files import KIND, Embeddings, file_path, make_folder, read_file, rows_of_files
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.ranks import dist
from vidmae.ranks.program import EXIT_OK
from vidmae.ranks.shard_program import EXIT_INCOMPLETE, Say, run
from vidmae.runs.record import SCHEMA, job_id, read_json, write_json
from vidmae.settings.config import DataConfig
from vidmae.settings.layers import load
from vidmae.settings.programs.embed_config import EmbedConfig


class Embedding:
    """An encoder, and the clips that it looks at: the centre view of each.

    Args:
        config: What is asked for.
        manifest: The videos.
        device: Where the encoder computes.
    Attributes:
        spec: What a clip is.
    Raises:
        ValueError: The weights hold no encoder of this suite.
    """

    def __init__(self, config: EmbedConfig, manifest: Manifest, device: torch.device) -> None:
        self.config, self._manifest, self._device = config, manifest, device
        trained = load_trained_encoder(config.weights, device=device, known=config.sizes)
        self.model, data = trained.model, trained.data or DataConfig()
        self.stride_from = ("--sampling-rate" if config.sampling_rate else
                            "that of training" if trained.data else "the paper's in training")
        shape = self.model.shape
        self.spec = ViewSpec(num_frames=shape.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                             target_fps=data.target_fps, img_size=shape.img_size)

    def make(self, out: Path, files: dict[Path, range], say: Say) -> None:
        """Make some files.

        Args:
            out: The folder.
            files: Each file and its rows; all but the last have `clips_per_file`.
            say: Told how many clips are done.
        Raises:
            ValueError: Twenty clips of a file cannot be read: the disk may be gone; or features are not finite.
        """
        config, waiting = self.config, list(files.items())
        rows = np.concatenate([np.arange(r.start, r.stop) for r in files.values()])
        loader = view_loader(self._manifest, rows, self.spec, rank=0, world_size=1, batch=config.batch,
                             workers=config.workers, read_limit_s=config.read_limit_s, read_retries=0,
                             pin_memory=self._device.type == "cuda")
        make_folder(out)
        found: list[Embeddings] = []
        unreadable: dict[int, str] = {}
        for done, batch in enumerate(loader, 1):  # a file holds whole batches, so no batch has clips of two
            found.append(self._look(batch))
            unreadable |= dict(batch.unreadable)
            say(f"{min(done * config.batch, len(rows))}/{len(rows)} clips")
            path, wanted = waiting[0]
            if len(unreadable) >= GIVE_UP:
                refuse_unreadable(unreadable, len(wanted), gave_up=True)
            if sum(map(len, found)) + len(unreadable) == len(wanted):
                joined = {name: np.concatenate([vars(each)[name] for each in found]) for name in vars(found[0])}
                Embeddings(**joined).write(path, list(unreadable.values()))
                found, unreadable = [], {}
                del waiting[0]

    def _look(self, batch: ViewBatch) -> Embeddings:
        """The features of one batch; one that is not full is filled up, so that a feature does not hang on the others."""
        rows, width = batch.rows, self.model.shape.embed_dim
        content, label = self._manifest.content[rows], self._manifest.class_index[rows].astype(np.int32)
        if not len(rows):
            return Embeddings(content, label, *np.empty((2, 0, width), dtype=np.float32))
        clips = batch.clips.to(self._device, non_blocking=True)
        filled = clips[torch.arange(self.config.batch, device=self._device) % len(rows)]
        cls, mean = pooled_features(self.model, filled, self.config.precision)
        return Embeddings(content, label, cls[:len(rows)], mean[:len(rows)])


def embed(out: Path, shard: int, shards: int, say_every_s: float) -> int:
    """Make this rank's files of one shard, and result.json where those were the last."""
    result = out / "result.json"
    if not result.exists():
        config = load(EmbedConfig, out / "config.yaml")
        manifest = Manifest.read(Path(config.manifest), config.manifest_content, decoder=config.decoder)
        ranks = dist.init(config.device)
        rows = rows_of_files(len(manifest), config.clips_per_file)
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
        if not all(path.exists() for path in paths):
            return EXIT_OK  # other shards are at work
        if ranks.is_main:
            finish(out, config, paths)
        ranks.barrier()
    return EXIT_INCOMPLETE if (read_json(result) or {}).get("unreadable") else EXIT_OK


def describe(work: Embedding) -> str:
    """What is about to be done, in one line."""
    spec, shape = work.spec, work.model.shape
    return (f"{shape.name}, {shape.img_size} px, {spec.num_frames} frames at sampling rate {spec.sampling_rate} "
            f"({work.stride_from}), centre view, {work.config.precision}")


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
    if not clips:
        raise ValueError(f"not one clip could be read: {'; '.join(f'{n} x {why}' for why, n in unreadable.items())}")
    write_json(out / "result.json", {
        "schema": SCHEMA, "kind": KIND, "weights_content": config.weights_content, "data": Path(config.manifest).stem,
        "content_sha256": config.manifest_content, "clips": clips, "embed_dim": width, "files": len(paths),
        "classes": class_names(Path(config.manifest)), "view": "center", "precision": config.precision,
        "unreadable": dict(unreadable), "job_id": job_id(), "finished": time.time()})


def class_names(manifest: Path) -> dict[str, str]:
    """Name of every class by its index, as JSON has it; empty where no video has a label."""
    labels = sorted({row.label for row in read_all(manifest)[1]} - {""})
    return {str(index): label for index, label in zip(class_table(labels), labels, strict=True)}


def main(argv: list[str] | None = None) -> int:
    """Do this rank's part of this shard; 0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read."""
    return run("vidmae.insight.embed", argv, embed)


if __name__ == "__main__":
    sys.exit(main())
