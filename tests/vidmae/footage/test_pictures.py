"""Pictures as videos of one frame: pixels against arrays and OpenCV, what is left out, and clips of equal frames read once."""

import csv
import struct
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from jobs import prepare
from tests.support.labelled import write_labelled
from vidmae.clips.cutting import ClipSpec, Cutter
from vidmae.clips.order import Place
from vidmae.clips.reading import Reader
from vidmae.clips.transforms import crop_resize
from vidmae.clips.view_cutting import ViewCutter
from vidmae.clips.views import ViewSpec
from vidmae.footage import manifest as m
from vidmae.footage.decoders.with_pillow import ORIENTATION, PillowReader, look_at_picture
from vidmae.footage.manifest import Check, Manifest, ManifestError, find_sources, read_summary
from vidmae.footage.manifest_build import Judge, build
from vidmae.footage.open_video import DecodeError, candidates, may_hang, open_video, second_decoder
from vidmae.footage.verify import CLIP_S
from vidmae.footage.video_list import PICTURES
from vidmae.mixtures.mixture import read_footage
from vidmae.mixtures.mixture_order import turns_per_epoch
from vidmae.settings.config import FootageConfig, SourceConfig

HEIGHT, WIDTH = 30, 42


def noise(*channels: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, *channels), dtype=dtype)


def smooth() -> np.ndarray:
    """A picture that JPEG keeps, different in all corners."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 8, columns * 6, 255 - rows * 4 - columns * 3], axis=2).clip(0, 255).astype(np.uint8)


def turned(path: Path, orientation: int) -> Path:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    Image.fromarray(smooth()).save(path, exif=tags, quality=95)
    return path


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    with open_video(path, "pillow") as picture:
        frames = picture.read([0])
    assert frames.shape[0] == 1 and frames.dtype == np.uint8
    return frames[0]


def opencv(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]  # follows the EXIF tag


def test_lossless_pictures_are_their_arrays(tmp_path):
    rgb, grey, alpha, deep = noise(3), noise(), noise(4), noise(dtype=np.uint16)
    for name, options in (("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True})):
        assert np.array_equal(read(save(tmp_path / name, rgb, **options)), rgb), name
    for name in ("grey.png", "grey.bmp"):
        assert np.array_equal(read(save(tmp_path / name, grey)), np.repeat(grey[..., None], 3, 2)), name
    assert np.array_equal(read(save(tmp_path / "alpha.png", alpha)), alpha[..., :3])
    assert np.array_equal(read(save(tmp_path / "deep.png", deep)), np.repeat((deep // 256).astype(np.uint8)[..., None], 3, 2))
    colours = noise(3, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep_rgb.png"), colours[..., ::-1])
    assert np.array_equal(read(tmp_path / "deep_rgb.png"), (colours // 256).astype(np.uint8))
    few = Image.fromarray(rgb).quantize(16)
    few.save(tmp_path / "palette.png", transparency=3)
    assert np.array_equal(read(tmp_path / "palette.png"), np.array(few.getpalette()[:48]).reshape(-1, 3)[np.asarray(few)])
    bits = noise() > 127
    assert np.array_equal(read(save(tmp_path / "bits.png", bits))[..., 1], bits * 255)
    found = {name: look_at_picture(tmp_path / name).codec for name in (
        "a.png", "a.webp", "a.bmp", "grey.png", "alpha.png", "deep.png", "palette.png", "bits.png")}
    assert found == {"a.png": "png", "a.webp": "webp", "a.bmp": "bmp", "grey.png": "png grey", "alpha.png": "png transparent",
                     "deep.png": "png grey 16-bit", "palette.png": "png palette transparent", "bits.png": "png grey"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_what_opencv_reads_turned_by_its_tag(tmp_path, orientation):
    path = turned(tmp_path / "x.jpg", orientation)
    expected, info = opencv(path), look_at_picture(path)
    assert read(path).shape == expected.shape and np.abs(read(path).astype(int) - expected).max() <= 2
    assert (info.height, info.width) == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    assert info.rotation == {3: 180, 4: 180, 5: 90, 6: 270, 7: 270, 8: 90}.get(orientation, 0) and info.codec == "jpeg"


def test_cmyk_becomes_what_its_inks_leave(tmp_path):
    for ink in ((0, 0, 0, 0), (255, 0, 0, 0), (40, 90, 200, 30), (0, 0, 0, 255), (10, 20, 30, 128)):
        path = tmp_path / "x.jpg"
        Image.new("CMYK", (16, 16), ink).save(path, quality=100)
        left = (255 - np.array(ink[:3])) * (255 - ink[3]) / 255
        assert np.abs(read(path) - left).max() <= 3, ink
        assert look_at_picture(path).codec == "jpeg cmyk"


def test_of_animations_the_first_frame_counts(tmp_path):
    frames = [Image.fromarray(np.roll(noise(3), i, axis=0)) for i in range(3)]
    for name, options in (("x.webp", {"lossless": True}), ("x.png", {})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(read(tmp_path / name), np.asarray(frames[0])) and look_at_picture(tmp_path / name).codec.endswith(" animated")


def bomb(path: Path) -> Path:
    """A PNG that says it is 60,000 px wide and high, and is not."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"0")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Class folders with pictures of every kind, good and bad."""
    folder = tmp_path_factory.mktemp("secret")
    for name in ("n01440764", "n01443537"):
        (folder / name).mkdir()
    one, two = folder / "n01440764", folder / "n01443537"
    turned(one / "turned.JPEG", 6)
    save(one / "named_wrongly.jpg", noise(3))
    (one / "named_wrongly.jpg").write_bytes(save(folder / "x.png", noise(3)).read_bytes())
    (folder / "x.png").unlink()
    Image.new("CMYK", (20, 10), (1, 2, 3, 4)).save(one / "cmyk.jpeg")
    save(two / "grey.png", noise())
    save(two / "copy.png", noise())
    whole = save(two / "whole.jpg", noise(3), quality=95).read_bytes()
    (two / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (two / "cut_png.png").write_bytes(save(two / "plain.png", noise(3)).read_bytes()[:-800])
    (two / "empty.jpg").write_bytes(b"")
    (two / "text.jpg").write_text("a page that says 404")
    Image.fromarray(noise(3)).save(folder / "x.gif")
    (folder / "x.gif").rename(two / "gif.jpg")
    bomb(two / "bomb.png")
    (two / "notes.txt").write_text("x")
    return folder


BAD = {"cut.jpg": "truncated", "cut_png.png": "Pillow cannot read it", "empty.jpg": "0 bytes", "text.jpg": "neither JPEG",
       "gif.jpg": "neither JPEG", "bomb.png": "Pillow cannot read it"}


def test_what_cannot_be_read_is_left_out_with_its_reason(folder, tmp_path):
    summary, _ = build(find_sources(folder, extensions=PICTURES), tmp_path / "p.csv", Check("pillow", True), workers=1,
                       time_limit_s=60, progress=lambda *_: None)
    assert (summary.videos, summary.unreadable, summary.decoders, summary.pictures) == (7, len(BAD), {"pillow": 7}, True)
    with m.unreadable_path(tmp_path / "p.csv").open(newline="") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert {name: words in reasons[name] for name, words in BAD.items()} == dict.fromkeys(BAD, True), reasons
    assert not any(name in reason or "secret" in reason for name, reason in reasons.items())
    rows = {Path(row.path).name: row for row in m.read_all(tmp_path / "p.csv")[1]}
    assert (rows["turned.JPEG"].height, rows["turned.JPEG"].rotation) == (WIDTH, 270) and rows["named_wrongly.jpg"].codec == "png"
    assert {(row.frames, row.seconds >= CLIP_S) for row in rows.values()} == {(1, True)}
    assert summary.share_shorter(16 * 8 / 30) == 0, "a clip of a picture is not short"
    moved = Judge("pillow", True)(m.Source(str(folder / "gone.jpg"), ""))
    assert moved.final and moved.reason == "no such file"


def test_the_command_counts_and_names(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names = tmp_path / "synsets.txt"
    names.write_text("n01443537 goldfish, Carassius auratus\nn01440764\ttench, Tinca tinca\nn01484850 great white shark\n")
    told = [str(folder), "--images", "--labels", "folders", "--class-names", str(names), "--name", "p", "--workers", "1"]
    assert prepare.main(["manifest", *told]) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "labels: 2 classes of 3 to 10 pictures" in said and "7 pictures, " in said and "1 .txt" in said
    assert "formats: 4 png, 3 jpeg" in said
    assert "2 are grey" in said and "1 are CMYK" in said and "1 are turned" in said and "shorter than" not in said
    assert "2 pictures are copies" in said and "truncated" in said and "sweeps/objects.py --data" in said
    assert Counter(row.label for row in m.read_all(tmp_path / "manifests/p.csv")[1]) == {"n01440764 tench": 3, "n01443537 goldfish": 4}
    assert read_summary(tmp_path / "manifests/p.csv").clip_cost, "CPU time of a picture is measured as that of a clip"
    for flags, words in ((["--decoder", "pyav"], "--images are read by pillow"), (["--class-names", str(folder / "gone")], "cannot read")):
        assert prepare.main(["manifest", *told, *flags]) == 2
        assert words in capfd.readouterr().err
    assert prepare.main(["manifest", str(folder), "--name", "v"]) == 2
    assert "pictures: give --images" in capfd.readouterr().err
    assert prepare.main(["footage", "p"]) == 2 and "nothing need be prepared" in capfd.readouterr().err


def test_a_list_of_pictures(folder, tmp_path):
    listing = tmp_path / "val.txt"
    listing.write_text(f"{folder}/n01440764/cmyk.jpeg 0\n{folder}/n01443537/grey.png 1\n")
    assert [source.label for source in find_sources(listing, extensions=PICTURES)] == ["0", "1"]
    with pytest.raises(ManifestError, match=r"\.mp4"):
        find_sources(listing)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for i in range(2):
        save(folder / f"{i}.png", np.roll(smooth(), i, axis=0))
    build(find_sources(folder, extensions=PICTURES), folder / "p.csv", Check("pillow", True), workers=1, time_limit_s=60,
          progress=lambda *_: None)
    return folder / "p.csv"


@pytest.fixture(scope="module")
def pictures(path) -> Manifest:
    return Manifest.read(path)


def count_reads(monkeypatch) -> list[int]:
    counted: list[int] = []
    inner = PillowReader._read_sorted
    monkeypatch.setattr(PillowReader, "_read_sorted", lambda self, indices: counted.append(len(indices)) or inner(self, indices))
    return counted


def test_a_clip_is_equal_frames_of_a_picture_that_is_decoded_once(pictures, monkeypatch):
    counted = count_reads(monkeypatch)
    spec = ClipSpec(16, 8, 30.0, 16, (0.5, 1.0), (0.75, 1.333), 0.5, 4, "own", 3)
    clips, masks = np.empty((4, *spec.shape), np.uint8), np.empty((4, 3), np.float32)
    reader = Reader(Cutter(pictures, spec, 0), limit_s=60.0, retries=0, unreadable={}, most_clips=4)
    assert reader.read(1, [Place(0, 1, 1, repeat) for repeat in range(4)], clips, masks) is None
    assert counted == [1] and reader._process is None, "once for four clips, in this process"
    assert (clips == clips[:, :1]).all() and len({clip.tobytes() for clip in clips}) == 4, "still, each cut anew"
    view = np.empty((1, 16, 16, 16, 3), np.uint8)
    ViewCutter(pictures, ViewSpec(16, 8, 30.0, 16)).cut(1, [0], view)
    square = torch.from_numpy(np.roll(smooth(), 1, axis=0)[:, 6:36].copy()).permute(2, 0, 1)[None]
    small = F.interpolate(square, size=(16, 16), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert (view == view[:, :1]).all() and np.abs(view[0, 0].astype(int) - small).max() <= 1 and counted == [1, 1]
    single = np.empty((1, 1, 16, 16, 3), np.uint8)
    ViewCutter(pictures, ViewSpec(1, 8, 30.0, 16)).cut(1, [0], single)
    assert np.array_equal(single[0, 0], view[0, 0]), "an image model sees the same"


def test_pictures_are_a_source_of_a_mixture(path, tmp_path):
    videos = write_labelled(tmp_path)  # 36 of two seconds
    sources = (SourceConfig("toys", manifest=str(videos)), SourceConfig("p", manifest=str(path), weight=3))
    data = FootageConfig(sources=sources, weight="seconds", repeat_aug=1)
    footage = read_footage(data, num_frames=16, seed=0)
    assert [turns_per_epoch(part.stock, data) for part in footage.parts] == [round(72 * 30 / 128), 3 * 2], "each is a clip"
    spec = ClipSpec(16, 8, 30.0, 16, (0.5, 1.0), (0.75, 1.333), 0.0, 1, "own", 3)
    clips, masks = np.empty((1, *spec.shape), np.uint8), np.empty((1, 3), np.float32)
    Cutter(footage.manifest, spec, 0).cut(37, [Place(0, 0, 37, 0)], clips, masks)
    assert (clips == clips[:, :1]).all() and footage.manifest.decoder(37) == "pillow" and footage.manifest.decoder(0) == "decord"


def test_one_frame_is_resized_as_copies_of_it_are():
    frame = noise(3)[None]
    for box, flip in (((0, 0, HEIGHT, WIDTH), False), ((3, 5, 20, 31), True)):
        once = crop_resize(frame, np.zeros(7, int), box, 24, flip=flip)
        copies = crop_resize(np.repeat(frame, 2, 0), np.arange(7) % 2, box, 24, flip=flip)
        assert torch.equal(once, copies) and once.is_contiguous() and once.shape == (7, 24, 24, 3)


def test_pictures_have_one_reader(pictures):
    assert candidates("pillow") == ("pillow",) and second_decoder("pillow") == "pillow" and not may_hang("pillow")
    with open_video(pictures.path(0), "pillow") as picture, pytest.raises(DecodeError, match=r"\[0, 1\)"):
        picture.read([1])
