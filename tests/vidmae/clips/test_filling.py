"""Clips that are filled frame by frame, against cutting all frames of a clip at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vidmae.clips import filling
from vidmae.clips.filling import fill_clips
from vidmae.clips.transforms import CropResize, crop_resize

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (12, 90, 121, 3), dtype=np.uint8)
BOXES = [(0, 0, 90, 121), (7, 11, 61, 83), (30, 40, 20, 20), (5, 9, 32, 32), (0, 0, 1, 1), (89, 0, 1, 121)]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", BOXES)
def test_pixels_are_those_of_a_whole_clip(box, flip):
    for frames in (FRAMES, FRAMES[:, ::-1], np.ascontiguousarray(FRAMES.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)):
        clip = np.zeros((12, 32, 32, 3), np.uint8)
        cut = CropResize(box, flip, clip)
        for time, frame in enumerate(frames):
            cut(frame, [time])
        assert np.array_equal(clip, crop_resize(frames, np.arange(12), box, 32, flip=flip).numpy())


@pytest.mark.parametrize("turned", [False, True], ids=["as decoded", "upside down"])
@pytest.mark.parametrize("box", BOXES[:4])
def test_without_antialiasing_a_pixel_is_the_mean_of_the_four_nearest(box, turned):
    clip, mirrored = np.zeros((2, 1, 40, 40, 3), np.uint8)
    frame = np.ascontiguousarray(FRAMES[0, ::-1])[::-1] if turned else FRAMES[0]
    for place, flip in ((clip, False), (mirrored, True)):
        CropResize(box, flip, place, linear=True)(frame, [0])
    top, left, height, width = box
    cut = torch.from_numpy(FRAMES[0][top:top + height, left:left + width]).permute(2, 0, 1)[None].double()
    wanted = F.interpolate(cut, size=(40, 40), mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert np.abs(clip[0] - wanted).max() < 1.1 and np.array_equal(mirrored, clip[:, :, ::-1])


class Video:
    """Decodes each frame into the memory of the last, and notes what it decodes."""

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def each(self, indices):
        memory = np.empty_like(FRAMES[0])
        for index in indices.tolist():
            self.decoded.append(index)
            memory[:] = FRAMES[index]
            yield memory
        memory[:] = 0


@pytest.mark.parametrize("at_once", [1, 100])
def test_every_clip_gets_its_frames_in_its_order_and_each_is_decoded_once(at_once, monkeypatch):
    indices = np.array([[4, 5, 6, 7], [0, 3, 3, 11], [6, 6, 6, 6], [8, 2, 9, 2]])
    monkeypatch.setattr(filling, "READ_BYTES", at_once * 4 * FRAMES[0].nbytes)
    clips, video, asked = np.zeros((4, 4, 24, 24, 3), np.uint8), Video(), []

    def look(i, height, width):
        asked.append((i, height, width))
        return BOXES[i], i % 2 == 1

    fill_clips(video, indices, clips, look, frame_bytes=FRAMES[0].nbytes)
    for i, which in enumerate(indices):
        assert np.array_equal(clips[i], crop_resize(FRAMES, which, BOXES[i], 24, flip=i % 2 == 1).numpy()), i
    assert sorted(asked) == [(i, 90, 121) for i in range(4)], "once for each clip"
    every = sorted(set(indices.ravel().tolist()))
    assert video.decoded == every if at_once > 1 else len(video.decoded) > len(every)
