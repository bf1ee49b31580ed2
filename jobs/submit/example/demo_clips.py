"""Render the labelled clips of the demo: real footage seen by a virtual camera, whose motion is the label.

    python jobs/submit/example/demo_clips.py --out runs/demo-clips
    python jobs/submit/example/demo_clips.py --out runs/demo-clips --seed 1 --clips 50
    python jobs/prepare.py manifest runs/demo-clips/motion --labels folders --name motion

Writes OUT/motion/CLASS/N.mp4 to learn from and OUT/motion-val/CLASS/N.mp4 to validate on, of other footage: bikes against
bigbuckbunny and carphone. Clip N of every class is of the same footage, played in the same direction, and has the very same
picture in its middle, so that no still frame tells the class, only what the picture does: data.flip_prob must be 0. Clips
that are there already are not rendered again. OUT/clips.json says what each clip shows.

Exit codes: 0 done, 1 ffmpeg failed, 2 usage, a package is missing, or OUT cannot be written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from jobs.demo import clips_folder
from jobs.place.launch_flags import Parser
from jobs.submit.example.own_files import refuse_others
from vidmae.runs.record import make_private_folder, read_json, write_json

FRAMES, FPS = 40, 7.5  # 5.3 s: room for the 4.3 s that a model sees
HELD = 2  # frames of a clip that show one of the footage, which thus runs at 0.15 of its speed: the camera is faster
SIZE_PX = 128
HEIGHT_PX = 240  # all footage is brought to this height first
EDGE_PX = 4  # of the footage that is never shown: some has a dark column there
TRAVEL, ZOOM, TURN_DEG = 1.0, 2.2, 60.0  # what the fastest camera does in a clip: window sides, ratio of sides, roll
SHAKE = 0.12  # of the window's side, at most, to each side
STILL = (0.0, 0.0, 0.0, 0.0)
MOTIONS: dict[str, tuple[float, float, float, float]] = {
    "pan left": (-TRAVEL, 0, 0, 0), "pan right": (TRAVEL, 0, 0, 0),
    "pan up": (0, -TRAVEL, 0, 0), "pan down": (0, TRAVEL, 0, 0),
    "zoom in": (0, 0, -np.log(ZOOM), 0), "zoom out": (0, 0, np.log(ZOOM), 0),
    "rotate clockwise": (0, 0, 0, np.radians(TURN_DEG)), "rotate counterclockwise": (0, 0, 0, -np.radians(TURN_DEG)),
    "still": STILL, "shake": STILL,
}
"""Class to what the camera does in a clip: moves right and down (sides of its window), widens (log), rolls clockwise."""


@dataclass(frozen=True)
class Shot:
    """Frames of a file without a cut in between; width as it is shown at HEIGHT_PX."""

    file: str
    first: int
    frames: int
    width_px: int


SHOTS = {
    "motion": (Shot("bikes.mp4", 110, 27, 564), Shot("bikes.mp4", 137, 50, 564), Shot("bikes.mp4", 187, 55, 564)),
    "motion-val": (Shot("bigbuckbunny.mp4", 0, 132, 426), Shot("carphone_pristine.mp4", 0, 120, 320)),
}
"""Data set to its footage. Left out: bikes' first shot, of bare asphalt, and frames 30 to 109, in which a man, a taxi and a
van fill the picture: nobody could tell there what the camera does. carphone_distorted shows what carphone_pristine does."""
FILMS: dict[str, Mapping[str, tuple[Shot, ...]]] = {
    "demo": SHOTS, "apart": {"motion": SHOTS["motion-val"][:1], "motion-val": SHOTS["motion-val"][1:]}}
"""What --films says. apart: one film to learn from and another to be tested on, which leaves bikes to pretrain on."""


@dataclass(frozen=True)
class Scene:
    """What the clips of one number have in common: the footage, and where the camera is in the middle of the clip."""

    shot: Shot
    first: int  # frame of the file that is the clip's first or, played backwards, its last
    backwards: bool
    x_px: float
    y_px: float
    side_px: float  # of the square that the camera sees
    angle: float  # radians, clockwise
    pace: float  # share of the fastest camera
    shake_seed: int

    def frames(self) -> np.ndarray:
        """int64 [FRAMES], numbers of the file's frames in the order they are shown."""
        numbers = self.first + np.arange(FRAMES) // HELD
        return numbers[::-1] if self.backwards else numbers

    def poses(self, motion: str) -> np.ndarray:
        """float64 [FRAMES, 4]: x, y, side in px and angle of the camera; the same in frame FRAMES // 2 for all motions."""
        time = (np.arange(FRAMES)[:, None] - FRAMES // 2) / FRAMES
        right, down, widen, roll = (time * self.pace * np.array(MOTIONS[motion])).T
        if motion == "shake":
            offsets = np.random.default_rng(self.shake_seed).uniform(-SHAKE, SHAKE, (FRAMES, 2))
            offsets[FRAMES // 2] = 0
            right, down = offsets.T
        cos, sin = np.cos(self.angle), np.sin(self.angle)  # right and down are the camera's own
        return np.stack([self.x_px + self.side_px * (cos * right - sin * down),
                         self.y_px + self.side_px * (sin * right + cos * down),
                         self.side_px * np.exp(widen), self.angle + roll], axis=1)

    def fits(self) -> bool:
        """Whether no camera ever looks beyond the footage."""
        x, y, side, angle = np.concatenate([self.poses(motion) for motion in MOTIONS]).T
        reach = EDGE_PX + side / 2 * (abs(np.cos(angle)) + abs(np.sin(angle)))
        return bool(np.all((x >= reach) & (x <= self.shot.width_px - reach) & (y >= reach) & (y <= HEIGHT_PX - reach)))


def scenes(dataset: str, clips: int, seed: int, films: str = "demo") -> list[Scene]:
    """Draw the scenes of a data set: its shots in turn, the rest at random. The first of many are the same as the few."""
    shots = FILMS[films][dataset]
    rng = np.random.default_rng((seed, list(SHOTS).index(dataset)))
    return [_scene(rng, shots[number % len(shots)]) for number in range(clips)]


def _scene(rng: np.random.Generator, shot: Shot) -> Scene:
    while True:
        first = shot.first + int(rng.integers(shot.frames - FRAMES // HELD + 1))
        scene = Scene(shot, first, backwards=bool(rng.integers(2)), x_px=rng.uniform(0, shot.width_px),
                      y_px=rng.uniform(0, HEIGHT_PX), side_px=rng.uniform(80, 110), angle=rng.uniform(-0.1, 0.1),
                      pace=rng.uniform(0.7, 1), shake_seed=int(rng.integers(2**31)))
        if scene.fits():
            return scene


def render(frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """What the camera sees.

    Args:
        frames: float32 [T, 3, H, W], 0 to 255.
        poses: float64 [T, 4], see Scene.poses.
    Returns:
        uint8 [T, SIZE_PX, SIZE_PX, 3].
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    height, width = frames.shape[2:]
    x, y, side, angle = poses.T
    cos, sin = side * np.cos(angle), side * np.sin(angle)
    # from the camera's square to the frame's rectangle, both of which reach from -1 to 1
    theta = np.stack([cos / width, -sin / width, 2 * x / width - 1, sin / height, cos / height, 2 * y / height - 1], axis=1)
    grid = affine_grid(torch.from_numpy(theta).float().view(-1, 2, 3), [len(frames), 3, SIZE_PX, SIZE_PX],
                       align_corners=False)
    seen = grid_sample(torch.from_numpy(frames), grid, mode="bilinear", align_corners=False)
    return seen.round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def decode(shot: Shot) -> np.ndarray:
    """Read a shot at HEIGHT_PX, uint8 [frames, HEIGHT_PX, width_px, 3]."""
    chosen = f"trim=start_frame={shot.first}:end_frame={shot.first + shot.frames}"
    chosen += f",scale={shot.width_px}:{HEIGHT_PX}:flags=area"
    raw = _ffmpeg("-i", str(clips_folder() / shot.file), "-vf", chosen, "-fps_mode", "passthrough", "-f", "rawvideo",
                  "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shot.frames, HEIGHT_PX, shot.width_px, 3)


def encode(path: Path, frames: np.ndarray) -> None:
    """Write uint8 [T, SIZE_PX, SIZE_PX, 3] as H.264; one thread, so that the same frames give the same file."""
    size = f"{SIZE_PX}x{SIZE_PX}"
    _ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-threads", "1",
            "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", str(path), data=frames.tobytes())


def cut(shot: Shot, path: Path) -> None:
    """Write the frames of a shot as a film of their own, as they are but for the encoding (H.264)."""
    chosen = f"trim=start_frame={shot.first}:end_frame={shot.first + shot.frames},setpts=PTS-STARTPTS"
    _ffmpeg("-i", str(clips_folder() / shot.file), "-vf", chosen, "-an", "-c:v", "libx264", "-threads", "1", "-crf", "16",
            "-pix_fmt", "yuv420p", str(path))


def _ffmpeg(*args: str, data: bytes = b"") -> bytes:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-loglevel", "error", "-y", *args]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def make(out: Path, *, clips: int = 12, seed: int = 0, films: str = "demo") -> bool:
    """Render everything, unless it is there.

    Args:
        out: Folder to write to.
        clips: Clips of each class, in each of the two data sets.
        seed: Another one draws other scenes.
        films: A key of FILMS.
    Returns:
        Whether anything had to be rendered.
    Raises:
        FileExistsError: There are folders of these names, or files in them, that this function did not make.
    """
    plan: dict[str, Any] = {name: [asdict(scene) for scene in scenes(name, clips, seed, films)] for name in SHOTS}
    plan["camera"] = [FRAMES, FPS, HELD, SIZE_PX, HEIGHT_PX, TRAVEL, ZOOM, TURN_DEG, SHAKE]
    if read_json(out / "clips.json") == plan:
        return False
    if not (out / "clips.json").exists() and any((out / name).exists() for name in SHOTS):
        raise FileExistsError(f"{out} holds other folders named {' or '.join(SHOTS)}; change --out")
    refuse_others((out / name for name in SHOTS), rf"({'|'.join(MOTIONS)})/\d+\.mp4")
    write_json(make_private_folder(out) / "clips.json", {})  # begun
    for name in SHOTS:
        shutil.rmtree(out / name, ignore_errors=True)
        footage = {shot: decode(shot) for shot in FILMS[films][name]}
        for number, scene in enumerate(scenes(name, clips, seed, films)):
            _render_scene(out / name, number, scene, footage)
    write_json(out / "clips.json", plan)
    return True


def _render_scene(folder: Path, number: int, scene: Scene, footage: Mapping[Shot, np.ndarray]) -> None:
    shown = footage[scene.shot][scene.frames() - scene.shot.first]
    frames = np.ascontiguousarray(shown.transpose(0, 3, 1, 2), dtype=np.float32)

    def clip(motion: str) -> None:
        encode(make_private_folder(folder / motion) / f"{number:02d}.mp4", render(frames, scene.poses(motion)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # ffmpeg is a process of its own
        list(pool.map(clip, MOTIONS))


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="holds motion/ and motion-val/")
    parser.add_argument("--clips", type=int, default=12, help="of each class in each of the two (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default: %(default)s)")
    parser.add_argument("--films", choices=tuple(FILMS), default="demo",
                        help="demo: bikes to learn from, the others to be tested on; apart: bigbuckbunny to learn from, "
                             "carphone to be tested on (default: %(default)s)")
    args: Any = parser.parse_args(argv)
    if args.clips < 1 or args.seed < 0:
        parser.error(f"--clips {args.clips} must be 1 or more, --seed {args.seed} 0 or more")
    try:
        fresh = make(args.out, clips=args.clips, seed=args.seed, films=args.films)
    except (OSError, ImportError, RuntimeError) as error:  # RuntimeError: no ffmpeg for this platform
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"error: ffmpeg: {error.stderr.decode(errors='replace').strip()}", file=sys.stderr)
        return 1
    print(f"{'rendered' if fresh else 'already there:'} {args.clips} clips each of {len(MOTIONS)} camera motions to learn "
          "from, as many to validate on", file=sys.stderr)
    for name in SHOTS:
        print(args.out / name)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads would only be in each other's way beside the pool's
    sys.exit(main())
