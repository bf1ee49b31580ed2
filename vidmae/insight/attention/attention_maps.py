"""Where an encoder looks in the clips of a manifest, and whether at what moves.

    python -m vidmae.insight.attention.attention_maps OUT

    OUT/                0700
      config.yaml       what is asked for (attention_config.py)
      videos.csv        manifest of a folder or file that had none (the one place with file names)
      clips.csv         a row per clip and map: row (of the manifest, from 1), clip, content, map, attention_share,
                        area_share, ratio, others_ratio (of the mean map of other recordings); see motion_share.py
      summary.csv       a row per map: mean ratio with a 95 % interval over recordings, the same of others_ratio, difference
      pictures/         only where asked for: row00012-0.png (frames, map over them), -heads.png (all heads), .mp4 (beside)
      result.json       exists exactly when all is done

Maps are `mean` (over heads), `head1` and on, and `rollout` where asked for. One process; a second call does nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidmae.clips.windows import Window, WindowSpec, evenly_spread, places, read_windows, spread_windows
from vidmae.footage.encode import write_mp4
from vidmae.footage.manifest import Manifest
from vidmae.insight.attention.attention_table import COLUMNS, MEAN, ROLLOUT, SUMMARY_COLUMNS, summary
from vidmae.insight.attention.motion_share import MIN_AREA_SHARE, attention_share, moving_pixels, moving_share, others, ratio
from vidmae.insight.attention.token_attention import class_attention, rollout
from vidmae.insight.csv_rows import Row, without_nan, write_csv
from vidmae.insight.pictures import attention_strip, attention_video, save_png
from vidmae.model.trained_encoder import TrainedEncoder, load_trained_encoder
from vidmae.ranks.dist import choose_device
from vidmae.ranks.program import EXIT_OK
from vidmae.ranks.shard_program import EXIT_INCOMPLETE, answer
from vidmae.runs.record import SCHEMA, job_id, make_private_folder, read_json, write_json
from vidmae.settings.config import DataConfig
from vidmae.settings.layers import load
from vidmae.settings.programs.attention_config import AttentionConfig

LABELS = {MEAN: "mean over heads", ROLLOUT: "rollout"}
"""Maps that have a picture of their own, and what their row is called."""


@dataclass
class Seen:
    """What was found in the clips, one after the other."""

    windows: list[Window] = field(default_factory=list)
    moving: list[np.ndarray] = field(default_factory=list)
    maps: dict[str, list[np.ndarray]] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)


class Looking:
    """An encoder and the clips that it looks at.

    Args:
        config: What is asked for.
        device: Where the model computes.
    Attributes:
        spec: What a clip is.
        windows: All clips.
        short: How many videos are shorter than one, left out.
    Raises:
        ValueError: The weights have no encoder of this suite, or no video is long enough.
    """

    def __init__(self, config: AttentionConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.trained = load_trained_encoder(config.weights, device=device, known=config.sizes)
        self.shape = self.trained.model.shape
        self.spec = window_spec(config, self.trained)
        self.manifest = Manifest.read(Path(config.videos), config.videos_content, decoder=config.decoder)
        self.windows, self.short = spread_windows(self.manifest, self.spec, config.per_video)

    def maps(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """The maps of one clip by name, [t, h, w] each.

        Raises:
            ValueError: The weights hold NaN or infinity.
        """
        clips = torch.tensor(pixels)[None].to(self.device)
        heads = class_attention(self.trained.model, clips)[0].cpu().numpy()
        found = {MEAN: heads.mean(axis=0), **{f"head{i}": head for i, head in enumerate(heads, 1)}}
        if self.config.rollout:
            found[ROLLOUT] = rollout(self.trained.model, clips)[0].cpu().numpy()
        if not all(np.isfinite(each).all() for each in found.values()):
            raise ValueError(f"the attention of {self.config.weights} is not finite: its weights hold NaN or infinity")
        return found

    def look(self, out: Path) -> Seen:
        """Look at all clips; pictures go to a folder below `out`.

        Raises:
            ValueError: Not one clip can be read, or the weights hold NaN or infinity.
        """
        seen, shown = Seen(), evenly_spread(len(self.windows), self.config.pictures)
        where = places(self.manifest, self.windows)
        outcomes = read_windows(self.spec, where, workers=self.config.workers, limit_s=self.config.read_limit_s)
        for done, outcome in enumerate(outcomes, 1):
            if outcome.value is None:
                seen.unreadable[outcome.reason or "unknown"] += 1
            else:
                window, maps = self.windows[outcome.index], self.maps(outcome.value)
                moves = moving_pixels(outcome.value, self.config.moving_px, relative=self.config.relative)
                seen.windows.append(window)
                seen.moving.append(moving_share(moves, self.shape.grid))
                for name, found in maps.items():
                    seen.maps.setdefault(name, []).append(found)
                if outcome.index in shown:
                    self.draw(make_private_folder(out / "pictures") / f"row{window.row + 1:05d}-{window.number}",
                              outcome.value, maps)
            print(f"{done}/{len(self.windows)} clips", flush=True)
        if not seen.windows:
            reasons = "; ".join(f"{count} x {why}" for why, count in seen.unreadable.items())
            raise ValueError(f"not one clip could be read: {reasons}")
        return seen

    def draw(self, stem: Path, pixels: np.ndarray, maps: dict[str, np.ndarray]) -> None:
        """Write the maps of a clip as strips (.png) and beside it (.mp4)."""
        for name in maps.keys() & LABELS.keys():
            file = stem if name == MEAN else stem.with_name(f"{stem.name}-{name}")
            save_png(attention_strip(pixels, {LABELS[name]: maps[name]}), file.with_suffix(".png"))
            write_mp4(attention_video(pixels, maps[name]), file.with_suffix(".mp4"),
                      self.spec.target_fps / self.spec.sampling_rate)
        heads = {name.replace("head", "head "): found for name, found in maps.items() if name not in LABELS}
        save_png(attention_strip(pixels, heads, every=self.shape.t_patch_size), stem.with_name(f"{stem.name}-heads.png"))

    def rows(self, seen: Seen) -> list[Row]:
        """A row per clip and map, in the order of the manifest."""
        table, contents = [], self.manifest.content[[window.row for window in seen.windows]]
        usual = {name: others(np.stack(maps), contents) for name, maps in seen.maps.items()}
        for i in sorted(range(len(seen.windows)), key=lambda i: (seen.windows[i].row, seen.windows[i].number)):
            window, moving = seen.windows[i], seen.moving[i]
            area = float(moving.mean())
            for name, maps in seen.maps.items():
                share = attention_share(maps[i], moving)
                table.append({"row": window.row + 1, "clip": window.number, "content": f"{contents[i]:016x}",
                              "map": name, "attention_share": share, "area_share": area, "ratio": ratio(share, area),
                              "others_ratio": ratio(attention_share(usual[name][i], moving), area)})
        return table


def window_spec(config: AttentionConfig, trained: TrainedEncoder) -> WindowSpec:
    """What a clip is: the model's size, and the frame stride that is asked for or that of training."""
    data, shape = trained.data or DataConfig(), trained.model.shape
    return WindowSpec(num_frames=shape.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                      target_fps=data.target_fps, img_size=shape.img_size)


def describe(work: Looking) -> str:
    """What is about to be done, in one line."""
    spec, config = work.spec, work.config
    whose = "asked for" if config.sampling_rate else "that of training" if work.trained.data else "the paper's in training"
    return (f"{work.shape.name}, {len(work.windows)} clips of {spec.num_frames} frames at sampling rate "
            f"{spec.sampling_rate} ({whose}) = {spec.seconds:.2f} s; a pixel moves above {config.moving_px:g} px per frame"
            + (", the frame's median motion taken off" if config.relative else "")
            + (f"; {work.short} videos are shorter than a clip and left out" if work.short else "")
            + ("; nothing trained the class token's look in the last block of a masked autoencoder: rather take rollout, or "
               "a finetuned classifier" if work.trained.pretrained and not config.rollout else ""))


def attend(out: Path) -> int:
    """Do what OUT/config.yaml asks for; the exit code."""
    result = out / "result.json"
    if not result.exists():
        config = load(AttentionConfig, out / "config.yaml")
        work = Looking(config, choose_device(config.device, os.environ, 0))
        print(describe(work), flush=True)
        seen = work.look(out)
        rows = work.rows(seen)
        table = summary(rows)
        write_csv(out / "clips.csv", rows, COLUMNS)
        write_csv(out / "summary.csv", table, SUMMARY_COLUMNS)
        still = sum(row["map"] == MEAN and row["area_share"] < MIN_AREA_SHARE for row in rows)
        write_json(result, _record(work, seen, table, still))
    record = read_json(result) or {}
    return EXIT_INCOMPLETE if record.get("unreadable") else EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read."""
    parser = argparse.ArgumentParser(prog="python -m vidmae.insight.attention.attention_maps", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    return answer(lambda: attend(args.out))


def _record(work: Looking, seen: Seen, table: list[Row], still: int) -> dict[str, Any]:
    spec, config = work.spec, work.config
    return {"schema": SCHEMA, "kind": "attention", "model": work.shape.name, "weights_content": config.weights_content,
            "pretrained": work.trained.pretrained, "grid": list(work.shape.grid), "num_frames": spec.num_frames,
            "sampling_rate": spec.sampling_rate, "clip_fps": spec.target_fps / spec.sampling_rate, "clip_s": spec.seconds,
            "moving_px": config.moving_px, "relative": config.relative, "min_area_share": MIN_AREA_SHARE,
            "clips": len(seen.windows), "still_clips": still, "short_videos": work.short,
            "unreadable": dict(seen.unreadable), "job_id": job_id(), "finished": time.time(),
            "maps": without_nan(table)}


if __name__ == "__main__":
    sys.exit(main())
