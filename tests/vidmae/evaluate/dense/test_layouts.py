"""The layouts of DAVIS and TAP-Vid in tiny folders; pickles that ask for more than numbers run nothing."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidmae.evaluate.dense import number_pickle, tapvid_layout
from vidmae.evaluate.dense.davis_layout import davis_names, read_davis
from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.dense_sets import content_of, open_set, parse_set_name, sequences_of
from vidmae.evaluate.dense.number_pickle import UnsafePickleError, read_numbers
from vidmae.evaluate.dense.tapvid_layout import read_tapvid, tapvid_files, write_tapvid
from vidmae.settings.programs.dense_config import DenseProbeConfig

RNG = np.random.default_rng(0)


def write_davis(folder: Path, names: tuple[str, ...] = ("one", "two"), frames: int = 4) -> Path:
    """A folder in the layout of DAVIS 2017: two objects, and pixels that are not asked about."""
    for kind in ("JPEGImages/480p", "Annotations/480p", "ImageSets/2017"):
        (folder / kind).mkdir(parents=True)
    for name in names:
        for kind in ("JPEGImages/480p", "Annotations/480p"):
            (folder / kind / name).mkdir()
        for t in range(frames):
            Image.fromarray(np.full((24, 32, 3), 40 * t, np.uint8)).save(folder / "JPEGImages/480p" / name / f"{t:05d}.jpg")
            mask = np.zeros((24, 32), np.uint8)
            mask[4:12, 4 + t:12 + t], mask[14:20, 20:30], mask[0] = 1, 2, 255
            picture = Image.fromarray(mask, mode="P")
            picture.putpalette([value for number in range(256) for value in (number * 90 % 256, number, 7)])
            picture.save(folder / "Annotations/480p" / name / f"{t:05d}.png")
    (folder / "ImageSets/2017/val.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def tracks(count: int = 5, frames: int = 3) -> dict[str, Any]:
    """One sequence as TAP-Vid has it."""
    return {"video": RNG.integers(0, 256, (frames, 16, 20, 3), dtype=np.uint8), "points": RNG.random((count, frames, 2)).astype(np.float32),
            "occluded": RNG.random((count, frames)) < 0.3}


def test_davis(tmp_path: Path) -> None:
    folder = write_davis(tmp_path / "DAVIS")
    assert davis_names(folder) == ["one", "two"]
    found = read_davis(folder, "two")
    assert found.frames.shape == (4, 24, 32, 3) and found.masks is not None and found.masks.dtype == np.uint8
    assert [abs(int(frame.mean()) - 40 * t) <= 1 for t, frame in enumerate(found.frames)] == [True] * 4
    assert (found.masks[3, 4:12, 7:15] == 1).all() and (found.masks[2, 14:20, 20:30] == 2).all() and (found.masks[:, 0] == 255).all()
    assert found.masks[3, 5, 6] == 0, "the palette is not what counts"
    assert open_set("davis", "davis", folder, DenseProbeConfig()).frames == 8
    before = content_of("davis", folder)
    assert [make().frames.shape for make in sequences_of(DenseProbeConfig(kind="davis", path=str(folder)))] == [(4, 24, 32, 3)] * 2
    Image.fromarray(np.zeros((24, 32), np.uint8), mode="L").save(folder / "Annotations/480p/one/00002.png")
    assert content_of("davis", folder) != before and (tmp_path / "DAVIS").rename(tmp_path / "moved")
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "moved/Annotations/480p/one/00001.png")
    with pytest.raises(ValueError, match=r"a mask has colours \(RGB\), allowed: PNG with a palette"):
        read_davis(tmp_path / "moved", "one")
    (tmp_path / "moved/Annotations/480p/two/00001.png").unlink()
    with pytest.raises(ValueError, match="4 frames in JPEGImages/480p and 3 masks"):
        read_davis(tmp_path / "moved", "two")
    (tmp_path / "moved/ImageSets/2017/val.txt").write_text("../../etc\n")
    with pytest.raises(ValueError, match=r"line 1 of .* is no name of letters"):
        davis_names(tmp_path / "moved")
    with pytest.raises(ValueError, match="has not the layout of DAVIS 2017"):
        davis_names(tmp_path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tapvid_pickles_say_what_they_say_to_the_usual_reader(protocol: int, tmp_path: Path) -> None:
    listed = [tracks(), tracks(2)]
    listed[1]["points"] = np.asfortranarray(listed[1]["points"])
    jpegs = []
    for frame in listed[1]["video"]:
        data = io.BytesIO()
        Image.fromarray(frame).save(data, "JPEG", quality=95)
        jpegs.append(data.getvalue())
    listed[1]["video"] = jpegs
    for number, content in enumerate((listed, {"a": listed[0], "b": listed[1]}, [*listed[:1], {**listed[1], "video": np.array(jpegs, dtype=object)}])):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        one, other = read_tapvid(path)
        usual = listed[0]
        assert np.array_equal(one.frames, usual["video"]) and np.array_equal(one.points, usual["points"].astype(float))
        assert np.array_equal(one.occluded, usual["occluded"]) and np.array_equal(other.points, listed[1]["points"].astype(float))
        assert other.frames.shape == (3, 16, 20, 3)
    numbers = {"a": np.float32(1.5), "b": np.arange(6, dtype=">i4").reshape(2, 3), "c": [1, "x", None, True], "d": np.zeros((0, 2))}
    read = read_numbers(io.BytesIO(pickle.dumps(numbers, protocol=protocol)))
    assert read["a"] == 1.5 and np.array_equal(read["b"], numbers["b"]) and read["c"] == numbers["c"] and read["d"].shape == (0, 2)


class _Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], tuple(self.call[1:])


@pytest.mark.parametrize("evil", [
    _Evil(os.system, "touch ran"), _Evil(eval, "open('ran', 'w')"), _Evil(getattr, "x", "format"), _Evil(np.load, "ran"),
    [{**tracks(), "more": _Evil(os.mkdir, "ran")}], np.array([_Evil(os.mkdir, "ran")], dtype=object), {_Evil(os.mkdir, "ran"): 1},
    np.ma.masked_array([1.0], [True]), np.datetime64("2026-01-01"), np.array(["text"]), np.zeros(2, dtype=[("a", "i4")]), {1, 2}, 1j, Path("x"),
    _Evil(np.dtype, "O", False, True)], ids=[
    "system", "eval", "getattr", "load", "among-tracks", "objects", "as-a-key", "masked", "time", "text", "fields", "set", "complex", "path",
    "dtype-of-objects"])
def test_a_pickle_that_asks_for_more_than_numbers_is_refused_and_runs_nothing(evil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4, 5):
        data = pickle.dumps(evil, protocol=protocol)
        (tmp_path / "evil.pkl").write_bytes(data)
        with pytest.raises(UnsafePickleError, match="the pickle is not read: "):
            list(read_tapvid(tmp_path / "evil.pkl"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "evil.pkl"]


def test_damaged_and_hand_made_pickles_are_refused() -> None:
    good = pickle.dumps(tracks(), protocol=4)
    for data in (b"", b"no pickle", good[:-50], good[:200], b"cposix\nsystem\n(S'touch ran'\ntR.", b"P1\n.", b"\x80\x02\x8a\xff.",
                 good.replace(b"u1", b"O8", 1), good.replace(b"\x8c\x02u1", b"\x8c\x02V1", 1)):
        with pytest.raises(UnsafePickleError):
            read_numbers(io.BytesIO(data))
    wrong = pickle.dumps(np.zeros((2, 3), np.uint8), protocol=2).replace(b"K\x02K\x03", b"K\x02K\x09")
    with pytest.raises(UnsafePickleError, match=r"an array of shape \[2, 9\] that has 6 bytes"):
        read_numbers(io.BytesIO(wrong))


def test_a_pickle_changes_nothing_for_the_next_one() -> None:
    for name in (b"numpy.core.multiarray\nscalar", b"numpy.core.multiarray\n_reconstruct", b"numpy\ndtype", b"_codecs\nencode",
                 b"numpy.core.numeric\n_frombuffer"):
        for state in (b"(N}U\x05valueU\x04evilst", b"(N}U\x05_callU\x04evilst", b"(N}U\x08__code__U\x04evilst", b"}U\x05valueU\x04evils"):
            with pytest.raises(UnsafePickleError):
                read_numbers(io.BytesIO(b"\x80\x02c" + name + b"\n" + state + b"b."))
    made = pickle.dumps(np.float32(2), protocol=2)
    with pytest.raises(UnsafePickleError, match="changes what it has made"):
        read_numbers(io.BytesIO(made[:-1] + b"(N}U\x05partsU\x04evilstb."))
    assert all(not isinstance(getattr(each, "value", None), str) for each in number_pickle.KNOWN.values())
    assert read_numbers(io.BytesIO(made)) == 2


def test_a_small_pickle_asks_for_no_large_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_pickle, "MOST_VALUES", 1000)
    shared: list[Any] = [1] * 20
    for _ in range(3):
        shared = [shared] * 20
    with pytest.raises(UnsafePickleError, match="more than 1,000 values in lists"):
        read_numbers(io.BytesIO(pickle.dumps(shared)))
    assert read_numbers(io.BytesIO(pickle.dumps([[1] * 20] * 20))) == [[1] * 20] * 20
    long = np.array(b"x" * 6400)[()]
    assert read_numbers(io.BytesIO(pickle.dumps([long] * 5, protocol=2))) == [long] * 5
    with pytest.raises(UnsafePickleError, match="more than 1,000 values"):
        read_numbers(io.BytesIO(pickle.dumps([long] * 12, protocol=2)))
    twice = b"\x80\x02c_codecs\nencode\nq\x00X\x04\x00\x00\x00textq\x01X\x06\x00\x00\x00latin1q\x02\x86R0(h\x00h\x01h\x02\x86Rh\x00h\x01h\x02\x86Rl."
    one, other = read_numbers(io.BytesIO(twice))
    assert one == b"text" and one is other
    for put in (b"r\xff\xff\xff\x7f", b"p2147483647\n"):
        with pytest.raises(UnsafePickleError, match="at place 2147483647, of 1,000,000 at most"):
            read_numbers(io.BytesIO(b"\x80\x02]" + put + b"."))


def test_damaged_parts_of_a_set_of_points_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.pkl"
    for name, wrong, said in (("points", np.zeros((5, 3), "V8"), r"points of a sequence are \|V8, allowed: numbers"),
                              ("points", [[0.5], [0.5, 0.5]], "lists that are not all as long"), ("points", [["a", "b"]], "points of a sequence are"),
                              ("points", None, "object, allowed: numbers"), ("occluded", [["no"]], "allowed: numbers or flags")):
        parts = tracks() | {name: wrong}
        with pytest.raises(ValueError, match=said):
            tapvid_layout._sequence(parts)
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save(jpeg, "JPEG")
    path.write_bytes(pickle.dumps([tracks() | {"video": [jpeg.getvalue()] * 3}]))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"no JPEG file, or it is damaged \(DecompressionBombError\)"):
        list(read_tapvid(path))
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"is no \.npz file"):
        list(read_tapvid(tmp_path / "a.npz"))


def test_points_in_npz(tmp_path: Path) -> None:
    parts = tracks()
    sequence = DenseSequence(parts["video"], points=parts["points"], occluded=parts["occluded"])
    for name in ("b.npz", "a.npz"):
        write_tapvid(tmp_path / name, sequence)
    assert [path.name for path in tapvid_files(tmp_path)] == ["a.npz", "b.npz"]
    (read,) = read_tapvid(tmp_path / "a.npz")
    assert np.array_equal(read.frames, sequence.frames) and np.array_equal(read.points, sequence.points)
    np.savez(tmp_path / "evil.npz", video=np.array([_Evil(os.mkdir, str(tmp_path / "ran"))], dtype=object))
    for name, said in (("evil.npz", "allow_pickle"), ("lacks.npz", "lacks points, occluded")):
        if name == "lacks.npz":
            np.savez(tmp_path / name, video=parts["video"])
        with pytest.raises(ValueError, match=said):
            list(read_tapvid(tmp_path / name))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"no \.npz file, or it is damaged|pickled"):
        list(read_tapvid(tmp_path / "cut.npz"))
    with pytest.raises(ValueError, match="is no set of points"):
        tapvid_files(tmp_path / "none.pkl")


def test_words_of_sets() -> None:
    assert parse_set_name("davis=x/y") == ("davis", Path("x/y")) and parse_set_name("generated") == ("generated", None)
    for word in ("davis", "generated=x", "tapvid=", "other=x", ""):
        with pytest.raises(ValueError, match=r"allowed: davis=FOLDER, tapvid=FILE\.pkl\|FOLDER, generated"):
            parse_set_name(word)


def test_what_does_not_fit_together_is_no_sequence() -> None:
    parts = tracks()
    with pytest.raises(ValueError, match=r"points are \[5, 3, 2\] and occluded \[5, 2\]"):
        DenseSequence(parts["video"], points=parts["points"], occluded=parts["occluded"][:, :2])
    with pytest.raises(ValueError, match="frames are float64"):
        DenseSequence(parts["video"] / 2)
    with pytest.raises(ValueError, match="are no numbers"):
        DenseSequence(parts["video"], points=parts["points"] * np.nan, occluded=np.zeros((5, 3), bool))
