"""What an interpolation works with: a trained model, a mask, the clips of one or several sets of videos, scenes to track in.

`interpolate.py` deals the clips out and writes the tables.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidmae.clips.windows import Where, WindowSpec, evenly_spread, places, read_windows, spread_windows
from vidmae.footage.encode import write_mp4
from vidmae.footage.manifest import Manifest
from vidmae.insight.csv_rows import Row
from vidmae.insight.interpolation import tracking_probe
from vidmae.insight.interpolation.baselines import Filler, applicable, model_filler
from vidmae.insight.interpolation.image_mae import frame_filler, load_image_mae
from vidmae.insight.interpolation.interpolate_table import MODEL
from vidmae.insight.interpolation.scores import Judge
from vidmae.insight.pictures import save_png, side_by_side, strip
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import Mask, make_mask, removed_pixels
from vidmae.model.trained import Trained, load_trained, untrained
from vidmae.settings.config import DataConfig
from vidmae.settings.programs.interpolate_config import InterpolateConfig

BANK = 12  # clips that scenes are made of


@dataclass(frozen=True)
class Clip:
    """One clip of one domain: where it is, and what its rows say of it."""

    domain: str
    place: Where
    row: int
    number: int
    content: str
    picture: bool


class Interpolation:
    """A model, a mask and the clips that are to be filled in.

    Args:
        config: What is asked for.
        device: Where the model computes.
    Attributes:
        hidden_tokens: How many of a clip's tokens are hidden.
        spec: What a clip is.
        clips: All clips of all domains.
        short: Videos of each domain that are shorter than a clip, left out.
    Raises:
        ValueError: The model cannot fill in, no video is long enough, or the mask hides nothing or everything.
    """

    def __init__(self, config: InterpolateConfig, device: torch.device) -> None:
        self.config = config
        self.trained = trained = load_trained(config.weights, config.settings, device=device)
        self.shape = trained.model.shape
        _check_pixels(trained.model, config, "the model")
        if self.shape.num_frames == 1:
            raise ValueError(f"{config.weights} is an image model: it has no other frames to fill in from; give a video "
                             "model, and this one as its baseline (--image)")
        self.hidden_tokens = int(self._mask("", 0).mask.sum())
        if config.track:
            tracking_probe.hidden_by(config.mask, config.ratio, self.shape)
        self.spec = window_spec(config, trained)
        self.fillers: dict[str, Filler] = {MODEL: model_filler(trained.model, device)}
        if config.untrained:
            self.fillers["untrained"] = model_filler(untrained(trained.config, config.seed).to(device), device)
        if config.image:
            self.fillers["image"] = self._image_filler(device)
        self.short: dict[str, int] = {}
        self.clips = [clip for name, path in config.videos.items() for clip in self._clips(name, Path(path))]

    def _image_filler(self, device: torch.device) -> Filler:
        """The image MAE as a baseline; it must be of the clips' size, not of their patches'."""
        model = load_image_mae(self.config.image, device=device)
        _check_pixels(model, self.config, "the image MAE")
        if (theirs := model.shape.img_size) != (ours := self.shape.img_size):
            raise ValueError(f"the image MAE takes {theirs} px, the clips have {ours} px; give one of {ours} px (--image)")
        return frame_filler(model, device)

    def _clips(self, domain: str, path: Path) -> list[Clip]:
        manifest = Manifest.read(path, self.config.videos_content.get(domain, ""), decoder=self.config.decoder)
        windows, self.short[domain] = spread_windows(manifest, self.spec, self.config.per_video)
        shown = evenly_spread(len(windows), self.config.pictures)
        return [Clip(domain, place, w.row, w.number, f"{manifest.content[w.row]:016x}", i in shown)
                for i, (w, place) in enumerate(zip(windows, places(manifest, windows), strict=True))]

    def _mask(self, content: str, number: int) -> Mask:
        """The mask of one clip: a function of the seed and of what the clip is, not of where it stands."""
        words = f"{self.config.seed} {content} {number}".encode()
        seed = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")
        return make_mask(self.config.mask, self.shape, self.config.ratio, 1, generator=torch.Generator().manual_seed(seed))

    def rows(self, clip: Clip, pixels: np.ndarray, pictures: Path) -> list[Row]:
        """Fill in one clip by the model and by every baseline that its mask allows: a row of scores each."""
        hidden = removed_pixels(self._mask(clip.content, clip.number), self.shape)[0].numpy()
        judge = Judge(pixels, hidden, (self.shape.t_patch_size, self.shape.patch_size))
        rows = []
        for method, fill in {**self.fillers, **applicable(hidden)}.items():
            filled = fill(pixels, hidden)
            name = {"path": clip.place[0]} if self.config.names else {}
            rows.append({"domain": clip.domain, "row": clip.row + 1, "clip": clip.number, "content": clip.content,
                         "method": method, "motion_px": judge.motion_px, **vars(judge.score(filled)), **name})
            if clip.picture and method == MODEL:
                self.draw(pictures / f"{clip.domain}-row{clip.row + 1:05d}-{clip.number}", pixels, hidden, filled)
        return rows

    def draw(self, stem: Path, pixels: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> None:
        """Write a completion as three rows (.png) and side by side (.mp4)."""
        save_png(strip(pixels, hidden, filled), stem.with_suffix(".png"))
        write_mp4(side_by_side(pixels, hidden, filled), stem.with_suffix(".mp4"),
                  self.spec.target_fps / self.spec.sampling_rate)

    def bank(self) -> list[np.ndarray]:
        """First frames of some clips, evenly spread: what scenes are made of.

        Raises:
            ValueError: None of them can be read.
        """
        some = [self.clips[i].place for i in sorted(evenly_spread(len(self.clips), BANK))]
        read = read_windows(self.spec, some, workers=self.config.workers, limit_s=self.config.read_limit_s)
        frames = {outcome.index: outcome.value[0] for outcome in read if outcome.value is not None}
        if not frames:
            raise ValueError("not one clip can be read to make scenes of (--track)")
        return [frames[i] for i in sorted(frames)]

    def track(self, part: int, parts: int, pictures: Path, say: Any) -> list[Row]:
        """Rows of one part of the scenes of the tracking probe."""
        scenes, rows = tracking_probe.scenes_of(self.config.track)[part::parts], list[Row]()
        if not scenes:
            return rows
        bank = self.bank()
        frames = tracking_probe.whole_hidden(tracking_probe.hidden_by(self.config.mask, self.config.ratio, self.shape))
        for done, (number, path) in enumerate(scenes, 1):
            scene = tracking_probe.scene_of(number, path, bank, self.spec.num_frames, frames)
            for name, hidden in tracking_probe.masks(scene, self.config.mask, self.config.ratio, self.shape):
                for method, filled, found in tracking_probe.scene_rows(scene, number, name, hidden, frames, self.fillers):
                    rows += found
                    if method == MODEL and number == 0 and self.config.pictures:
                        self.draw(pictures / f"scene-{path}-{name}", scene.clip, hidden, filled)
            say(f"{done}/{len(scenes)} scenes")
        return rows


def window_spec(config: InterpolateConfig, trained: Trained) -> WindowSpec:
    """What a clip is: the model's size, and the frame stride that is asked for or that of training."""
    data = trained.data or DataConfig()
    return WindowSpec(num_frames=trained.config.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                      target_fps=data.target_fps, img_size=trained.config.img_size)


def _check_pixels(model: MaskedAutoencoder, config: InterpolateConfig, which: str) -> None:
    """Refuse a model of normalised patches unless it was asked for."""
    if model.norm_pix_loss and not config.true_stats:
        raise ValueError(f"{which} fills in normalised patches (model.norm_pix_loss): it says nothing of their brightness "
                         "and contrast; --true-stats takes both from the hidden patches, which flatters it")
