"""Which moments of which recordings are shown, and which recordings a probe learns from. Pure numbers; no file but the csv.

    recording     |--- file 1 ---|------ file 2 ------|          the parts of a recording, in their order
    room          |==  ==========|=== ================|          where the centre of a window may lie
    windows          x      x       x     x       x              one in each of N equal stretches, at a drawn place

Recordings, not windows, are dealt out to train, select and test: two windows of one recording look alike. Which videos are
parts of one recording is what the manifest knows or the names say; a video of which nothing is known is one of its own.
Of several copies of a video, whatever they are called, the first one in the manifest counts.

Letters: N windows, R recordings, T frames of a clip.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vidmae.footage.manifest import Row
from vidmae.footage.recordings import NAMINGS, known_parts, read_names
from vidmae.settings.programs.temporal_config import TimeProbesConfig

TRAIN, SELECT, TEST = range(3)
FEWEST_RECORDINGS = 5
MOST_OFF = 0.25  # how far, with speed, a step may be from the wanted one: else twice is in one file what one is in another
SHORT, UNEVEN = "too short", "no whole number of frames is near to half a step"
COPY = "a copy of another video"


@dataclass(frozen=True)
class Windows:
    """Moments of recordings.

    Attributes:
        row: int64 [N], of the manifest.
        centre: int64 [N], frame number in the middle of the window.
        step: int64 [N], frames of the file from one frame of a clip to the next, at its normal speed.
        fps: float64 [N], of the file.
        recording: int64 [N].
        line: int64 [N]; windows of one line lie on one axis of time: a recording, or a file where the order of the files of
            a recording is not known.
        when_s: float64 [N], time of the centre on that axis.
        part: int64 [R]: TRAIN, SELECT or TEST.
        left_out: Why videos have no window, and how many they are.
    """

    row: np.ndarray
    centre: np.ndarray
    step: np.ndarray
    fps: np.ndarray
    recording: np.ndarray
    line: np.ndarray
    when_s: np.ndarray
    part: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    def digest(self, content: Sequence[str]) -> str:
        """A hash of the windows and of the split, by the contents of all videos of the manifest."""
        h = hashlib.sha256()
        for row, *numbers in zip(self.row.tolist(), self.centre, self.step, self.recording, self.line, strict=True):
            h.update(f"{content[row]} {' '.join(map(str, numbers))}\n".encode())
        h.update(self.part.astype("<i8").tobytes())
        return h.hexdigest()


def draw_windows(rows: Sequence[Row], settings: TimeProbesConfig, *, num_frames: int, sampling_rate: int, target_fps: float,
                 seed: int) -> Windows:
    """Draw windows in the recordings of a manifest. Equal arguments give equal windows.

    Args:
        rows: All of the manifest.
        settings: How many windows, for which probes.
        num_frames: T.
        sampling_rate: Frame stride at target_fps.
        target_fps: Rate that the stride is counted in.
        seed: Of the windows and of the split.
    Raises:
        ValueError: Fewer than FEWEST_RECORDINGS recordings have room for a window, or the split leaves none to learn from.
    """
    recording, begins_s, line = recordings_of(rows)
    steps, reach, why = _room(rows, settings.probes, num_frames, sampling_rate / target_fps)
    room = np.array([row.frames for row in rows]) - 2 * reach
    why = [reason or (SHORT if free < 1 else "") for reason, free in zip(why, room.tolist(), strict=True)]
    why = _without_copies(rows, why)
    usable = np.array([not reason for reason in why])
    left_out = dict(Counter(filter(None, why)))
    files: dict[int, list[int]] = {}
    for row in np.lexsort((begins_s, recording)).tolist():
        if usable[row]:
            files.setdefault(int(recording[row]), []).append(row)
    if len(files) < FEWEST_RECORDINGS:
        raise ValueError(f"{len(files)} recordings have room for a window, allowed: {FEWEST_RECORDINGS} or more, since a "
                         f"probe is tested on recordings that it has not seen ({_told(left_out, len(rows))}). For shorter "
                         "clips: --set data.sampling_rate=N; speed and halves-apart need twice the length (--probes)")
    order = sorted(files.values(), key=lambda members: min(rows[row].content for row in members))  # whatever the paths
    drawn = np.random.default_rng([seed, 0]).permutation(len(order))[:settings.windows].tolist()
    most = min(settings.per_recording, max(1, settings.windows // len(drawn)))
    found: list[tuple[int, int, int]] = []
    for number, place in enumerate(drawn):
        found += [(number, row, centre) for row, centre in _in_recording(order[place], rows, reach, room, most, seed)]
    which, row, centre = (np.array(column, dtype=np.int64) for column in zip(*found, strict=True))
    fps = np.array([each.fps for each in rows])[row]
    return Windows(row, centre, steps[row], fps, which, line[row], begins_s[row] + centre / fps,
                   _split(len(drawn), settings), left_out)


def recordings_of(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which recording each video is a part of: int64 [n]; when it begins there, in seconds: float64 [n]; and its line.

    Parts of a recording are taken to follow each other without a gap. Where two of them have the same place, their order is
    not known, and each has a line of its own.
    """
    paths, facts = [row.path for row in rows], [row.facts for row in rows]
    named = {pattern: read_names(paths, pattern) for pattern in NAMINGS.values()}
    pattern = max(named, key=lambda each: sum(part is not None for part in named[each]))
    parts = [part if part and (named[pattern][row] or facts[row].session) else None
             for row, part in enumerate(known_parts(paths, facts, pattern))]
    groups: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        groups.setdefault(f"named {part.recording}" if part else f"row {row}", []).append(row)
    recording, begins_s, line = np.empty(len(rows), np.int64), np.zeros(len(rows)), np.empty(len(rows), np.int64)
    lines = 0
    for number, members in enumerate(groups.values()):
        recording[members] = number
        places = {row: part.part if (part := parts[row]) else 0 for row in members}
        if len(set(places.values())) < len(members):
            line[members] = np.arange(lines, lines + len(members))
            lines += len(members)
            continue
        members = sorted(members, key=places.__getitem__)
        seconds = np.array([rows[row].seconds for row in members])
        begins_s[members], line[members] = np.cumsum(seconds) - seconds, lines
        lines += 1
    return recording, begins_s, line


def _room(rows: Sequence[Row], probes: Sequence[str], num_frames: int, stride_s: float,
          ) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Of each video: frames between those of a clip, frames that a window needs on each side of its centre, and why it
    cannot be used (or empty). With `speed`, the step is even, so that half of it and twice as much are whole, too."""
    between = stride_s * np.array([row.fps for row in rows])
    if "speed" in probes:
        steps = 2 * np.maximum(1, np.round(between / 2)).astype(np.int64)
        why = [UNEVEN if off > MOST_OFF + 1e-9 else "" for off in np.abs(steps / between - 1).tolist()]
    else:
        steps, why = np.maximum(1, np.round(between)).astype(np.int64), [""] * len(rows)
    halves = num_frames - 1  # of a step, on each side
    if "speed" in probes:
        halves *= 2
    if "halves-apart" in probes:
        halves = max(halves, num_frames - 1 + num_frames)
    return steps, -(-halves * steps // 2), why


def _without_copies(rows: Sequence[Row], why: Sequence[str]) -> list[str]:
    """Why each video cannot be used, where all but the first of equal content cannot: they would be on both sides of the
    split."""
    seen, found = set[str](), list[str]()
    for row, reason in zip(rows, why, strict=True):
        found.append(reason or (COPY if row.content in seen else ""))
        if not reason:
            seen.add(row.content)
    return found


def _in_recording(members: Sequence[int], rows: Sequence[Row], reach: np.ndarray, room: np.ndarray, most: int, seed: int,
                  ) -> list[tuple[int, int]]:
    """Row and centre of the windows of one recording, in the order of time; no more than fit beside each other, or one."""
    ends = np.cumsum(room[members])
    number = int(min(most, 1 + ends[-1] // (2 * int(reach[members].max()))))
    own = np.random.default_rng([seed, 1, int(min(rows[row].content for row in members), 16)])
    places = np.minimum((np.arange(number) + own.random(number)) * ends[-1] / number, ends[-1] - 1).astype(np.int64)
    which = np.searchsorted(ends, places, side="right")
    rows_of = np.array(members)[which]
    centres = places - (ends[which] - room[rows_of]) + reach[rows_of]
    return list(zip(rows_of.tolist(), centres.tolist(), strict=True))


def _split(recordings: int, settings: TimeProbesConfig) -> np.ndarray:
    """The part of each recording; they come in a drawn order. ValueError where none is left to learn from."""
    test, select = (max(1, round(share * recordings)) for share in (settings.test_share, settings.select_share))
    if test + select >= recordings:
        raise ValueError(f"of {recordings} recordings {test} are to be tested on (temporal.test_share is "
                         f"{settings.test_share:g}) and {select} choose the penalty (temporal.select_share is "
                         f"{settings.select_share:g}), allowed: fewer than {recordings} together, so that one is left to "
                         "learn from (--set temporal.test_share=X, --set temporal.select_share=X)")
    part = np.full(recordings, TRAIN)
    part[:test], part[test:test + select] = TEST, SELECT
    return part


def _told(left_out: Mapping[str, int], videos: int) -> str:
    return ", ".join(f"{count} of {videos} videos: {why}" for why, count in left_out.items()) or f"{videos} videos"
