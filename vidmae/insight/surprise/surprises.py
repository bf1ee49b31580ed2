"""What a comparison of possible and impossible videos works with: a model and an untrained one like it, videos, pairs.

`surprise.py` deals the videos out and writes the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vidmae.clips.windows import WindowSpec, evenly_spread, places, read_windows, spread_windows
from vidmae.footage.killable import Outcome
from vidmae.footage.manifest import AUTO, Manifest
from vidmae.insight.csv_rows import Row
from vidmae.insight.surprise.masked_surprise import check_contexts, surprise_of
from vidmae.insight.surprise.pair_list import Place, content_of, read_pairs, videos_of
from vidmae.insight.surprise.plain_surprise import HOLD, ORACLE, PLAIN, hold, of_windows, oracle, plain_surprise
from vidmae.insight.surprise.surprise_table import MODEL, OWN, PIXEL, UNTRAINED, Comparison
from vidmae.insight.surprise.violations import CONCEPTS, QUADRUPLE, VIDEOS, Violation, make_violation, timeline
from vidmae.insight.surprise.whole_video import WholeReader, read_whole, starts
from vidmae.model.trained import load_trained, untrained
from vidmae.settings.config import DataConfig
from vidmae.settings.programs.surprise_config import SurpriseConfig

GENERATED = "generated"  # the set of generated scenes
BANK = 60  # pictures that generated scenes are made of
PER_SCENE = 3  # of these; no two looks share one, so that scenes of different looks are independent


@dataclass(frozen=True)
class SceneVideo:
    """One video of a generated scene: concept, number of the scene, worlds before and after the seam."""

    concept: str
    number: int
    order: str


class Surprises:
    """A model, the videos that are shown to it, and the pairs that they make.

    Args:
        config: What is asked for.
        device: Where the models compute.
    Attributes:
        trained: The model.
        spec: What a clip of it is.
        contexts: Context lengths, in frames.
        videos: All videos; number 1 is the first.
        pairs: Which of them are compared.
        methods: What gives a video its surprise.
    Raises:
        ValueError: The model cannot predict, or pairs or scenes do not fit.
    """

    def __init__(self, config: SurpriseConfig, device: torch.device) -> None:
        self.config = config
        self.trained = load_trained(config.weights, config.settings, device=device)
        self.shape, data = self.trained.model.shape, self.trained.data or DataConfig()
        if self.shape.num_frames == 1:
            raise ValueError(f"{config.weights} is an image model: it expects nothing of a next frame; give a video model")
        self.contexts = check_contexts(config.context_frames, self.shape)
        self.spec = WindowSpec(num_frames=self.shape.num_frames, sampling_rate=config.sampling_rate or data.sampling_rate,
                               target_fps=data.target_fps, img_size=self.shape.img_size)
        fresh = untrained(self.trained.config, config.seed).to(device)
        self._models = {name: surprise_of(model, device, config.batch)
                        for name, model in ((MODEL, self.trained.model), (UNTRAINED, fresh))}
        self.methods = [*(f"{name}{ending}" for name in self._models for ending in (OWN, PIXEL)), *PLAIN]
        self._bank: list[np.ndarray] | None = None
        self.videos, self.pairs = self._generated() if config.scenes else self._listed()
        self._scene: tuple[tuple[str, int], Violation] | None = None

    def _listed(self) -> tuple[Sequence[Place | SceneVideo], list[Comparison]]:
        pairs = read_pairs(Path(self.config.pairs))
        if content_of(pairs) != self.config.pairs_content:
            raise ValueError("the list of pairs or the sizes of its videos are others than when this was started; choose "
                             "another --out")
        videos = videos_of(pairs)
        number = {place: i for i, place in enumerate(videos, 1)}
        scenes = {key: i for i, key in enumerate(dict.fromkeys((p.dataset, p.scene) for p in pairs), 1)}
        return videos, [Comparison(number[p.possible], number[p.impossible], p.dataset, p.concept,
                                   scenes[p.dataset, p.scene]) for p in pairs]

    def _generated(self) -> tuple[Sequence[Place | SceneVideo], list[Comparison]]:
        timeline(self.shape.num_frames)  # refuses what is too short
        self.methods.append(ORACLE)
        scenes = [(concept, number) for concept in CONCEPTS for number in range(self.config.scenes)]
        videos = [SceneVideo(*scene, order) for scene in scenes for order in VIDEOS]
        number = {video: i for i, video in enumerate(videos, 1)}
        return videos, [Comparison(number[SceneVideo(*scene, possible)], number[SceneVideo(*scene, impossible)], GENERATED,
                                   scene[0], 1 + self._look(scene[1])) for scene in scenes
                        for possible, impossible in QUADRUPLE]

    def _look(self, number: int) -> int:
        """What a scene looks like. Scenes of one number look alike in all concepts, and pictures come again."""
        return number % max(1, len(self.bank()) // PER_SCENE) if self.config.backgrounds else number

    def _of(self, number: int) -> list[np.ndarray]:
        """The pictures of a scene."""
        return self.bank()[PER_SCENE * self._look(number):][:PER_SCENE]

    def read(self, numbers: Sequence[int]) -> Iterator[Outcome[np.ndarray]]:
        """The frames of some videos, in any order: uint8 [F, S, S, 3], or why they cannot be read.

        Args:
            numbers: Of the videos, from 0; an outcome has its place in this list.
        """
        listed = [video for video in (self.videos[i] for i in numbers) if isinstance(video, Place)]
        if listed:
            decoder = "pyav" if self.config.decoder == AUTO else self.config.decoder
            yield from read_whole(WholeReader(self.spec, decoder), listed, workers=self.config.workers,
                                  limit_s=self.config.read_limit_s)
            return
        for place, i in enumerate(numbers):
            scene = self.videos[i]
            assert isinstance(scene, SceneVideo)
            yield Outcome(place, self._violation(scene).video(scene.order), None)

    def rows(self, number: int, frames: np.ndarray) -> list[Row]:
        """The surprise of every window of one video, a row for each context length.

        Args:
            number: Of the video, from 0.
            frames: uint8 [F, S, S, 3].
        """
        length, video = self.spec.num_frames, self.videos[number]
        first = starts(len(frames), length, self.config.window_step)
        windows, plain = np.stack([frames[s:s + length] for s in first]), plain_surprise(frames)
        rows: list[Row] = []
        for context in self.contexts:
            found = {f"{name}{ending}": values for name, model in self._models.items()
                     for ending, values in model(windows, context).items()}
            found[HOLD] = hold(frames, first, context, length)
            found |= {name: of_windows(values, first, context, length) for name, values in plain.items()}
            if isinstance(video, SceneVideo):
                found[ORACLE] = oracle(self._violation(video).truth(video.order), first, context, length)
            rows += [{"video": number + 1, "context": context, "window": i, "start_frame": s,
                      **{method: float(found[method][i]) for method in self.methods}} for i, s in enumerate(first)]
        return rows

    def _violation(self, video: SceneVideo) -> Violation:
        """Both worlds of a scene; the last one is kept, since its four videos follow each other."""
        key = (video.concept, video.number)
        if self._scene is None or self._scene[0] != key:
            self._scene = (key, make_violation(video.concept, self._of(video.number), num_frames=self.spec.num_frames,
                                               size=self.spec.img_size, seed=(self.config.seed, video.number)))
        return self._scene[1]

    def bank(self) -> list[np.ndarray]:
        """Pictures of which scenes are made, each from the middle of a video; none where no backgrounds are given.

        Raises:
            ValueError: Not one of the videos can be read.
        """
        if self._bank is None:
            self._bank = self._pictures() if self.config.backgrounds else []
        return self._bank

    def _pictures(self) -> list[np.ndarray]:
        manifest = Manifest.read(Path(self.config.backgrounds), self.config.backgrounds_content, decoder=self.config.decoder)
        spec = WindowSpec(num_frames=1, sampling_rate=1, target_fps=self.spec.target_fps, img_size=self.spec.img_size)
        windows, _ = spread_windows(manifest, spec, -(-BANK // len(manifest)))
        some = [windows[i] for i in sorted(evenly_spread(len(windows), BANK))]
        read = read_windows(spec, places(manifest, some), workers=self.config.workers, limit_s=self.config.read_limit_s)
        found = {outcome.index: outcome.value[0] for outcome in read if outcome.value is not None}
        if not found:
            raise ValueError("not one video can be read to make scenes of (--backgrounds)")
        order = sorted(found)
        return [found[order[i]] for i in np.random.default_rng(self.config.seed).permutation(len(order))]
