"""Published names, and files of the hub: from its cache, put by hand, downloaded by a stand-in; what cannot be had says where it belongs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from vidmae.weights import hub
from vidmae.weights.finding import find, is_name
from vidmae.weights.released_weights import entry_of, published

REPO, NAME = "eminorhan/hvm-1", "hvm1@448_none.pth"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VIDMAE_WEIGHTS", str(tmp_path / "put"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def cached(tmp_path: Path, repo: str, name: str, content: bytes, *, sha256: str = "") -> Path:
    """A file in the hub's own layout: blobs by their hash, a snapshot of links, a reference to it."""
    top = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    blob = top / "blobs" / (sha256 or hashlib.sha256(content).hexdigest())
    link = top / "snapshots/0123abcd" / name
    for folder in (blob.parent, link.parent, top / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (top / "refs/main").write_text("0123abcd")
    return link


def test_names_follow_the_rule_of_their_author() -> None:
    entries = published()
    assert len([e for e in entries.values() if e.group == "video-models"]) == 20 and len([e for e in entries.values() if e.group == "hvm-1"]) == 18
    large = entry_of("vit_hvm1@448_ssv2-50shot")
    assert large is not None and (large.repo, large.files, large.classes) == (REPO, ("hvm1@448_ssv2-50shot.pth",), 174)
    assert large.sizes == {"name": "vit_huge_patch14", "img_size": 448, "num_frames": 16, "t_patch_size": 2}
    assert entries["kinetics_none"].repo != entries["hvm1-kinetics_none"].repo and entries["hvm1-kinetics_none"].files == ("kinetics_none.pth",)
    for entry in entries.values():
        assert bool(entry.repo) != bool(entry.url) and entry.files and entry.licence and entry.trained_on and entry.source.startswith("https://")
    assert entry_of("hvm1@449_none") is None


def test_a_file_in_the_cache_is_taken_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = cached(tmp_path, REPO, NAME, b"weights")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked the network"))
    found = find("hvm1@448_none")
    assert found.path == link and found.known["img_size"] == 448 and found.entry is not None
    assert find(f"hf://{REPO}/{NAME}").path == link and is_name("hvm1@448_none") and is_name("hf://a/b/c")


def test_what_was_put_by_hand_comes_first(tmp_path: Path) -> None:
    cached(tmp_path, REPO, NAME, b"weights")
    put = tmp_path / "put/eminorhan--hvm-1" / NAME
    put.parent.mkdir(parents=True)
    put.write_bytes(b"others")
    assert find("hvm1@448_none").path == put
    (tmp_path / "put/vitl16.pth.tar").write_bytes(b"first")
    assert find("vjepa-large").path == tmp_path / "put/vitl16.pth.tar"
    (tmp_path / "put/mae_pretrain_vit_large_k400.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"has the MD5 795f3.\.\.\., published is edf3a5"):
        find("mae_st-large-k400")


def test_a_download_is_asked_for_checked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    asked: list[tuple[str, str]] = []

    def download(repo: str, name: str, cache_dir: str | None = None) -> str:
        asked.append((repo, name))
        if name == "model.safetensors":
            raise EntryNotFoundError("no such file")
        return str(cached(tmp_path, repo, name, b"weights", sha256="0" * 64 if "bad" in name else ""))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find("videomae-base", say=said.append).path.name == "pytorch_model.bin"
    repo = "MCG-NJU/videomae-base"
    assert asked == [(repo, "model.safetensors"), (repo, "pytorch_model.bin"), (repo, "config.json")]
    assert said == [f"downloading hf://{repo}/model.safetensors", f"downloading hf://{repo}/pytorch_model.bin"]
    with pytest.raises(hub.NotHereError, match="is damaged: its SHA-256 begins with"):
        hub.fetch("a/b", ["bad.pth"])
    assert not list((tmp_path / "hub/models--a--b").rglob("bad.pth"))


def test_a_connection_that_fails_is_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (LocalEntryNotFoundError("https://hub/signed?token=hf_secret"), RuntimeError("https://hub/signed?token=hf_secret")):
        asked: list[str] = []

        def refuse(_: str, name: str, cache_dir: str | None = None, *, asked: list[str] = asked, error: Exception = error) -> str:
            asked.append(name)
            raise error

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
        with pytest.raises(hub.NotHereError, match=rf"the hub cannot be asked \({type(error).__name__}\)") as caught:
            find("videomae-base")
        assert asked == ["model.safetensors"] and "hf_secret" not in str(caught.value)
    put = tmp_path / "put/MCG-NJU--videomae-base/model.safetensors"
    put.parent.mkdir(parents=True)
    put.write_bytes(b"weights")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked the network for config.json"))
    assert find("videomae-base").path == put


def test_what_cannot_be_had_says_what_to_do_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    class Response:
        status_code, headers, request = 401, {}, None

    def refuse(*_: object, **__: object) -> str:
        raise HfHubHTTPError("https://hub/signed?token=hf_secret", response=Response())

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(hub.NotHereError) as caught:
        find("hvm1@448_none")
    assert "status 401" in str(caught.value) and "hf_secret" not in str(caught.value)
    assert "https://huggingface.co/eminorhan/hvm-1/resolve/main/hvm1@448_none.pth" in str(caught.value) and "put it at" in str(caught.value)
    for change, said in (({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids it"),):
        for key, value in change.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(hub.NotHereError, match=said):
            find("hvm1@448_none")
    with pytest.raises(hub.NotHereError, match=r"weights\.py get does that"):
        monkeypatch.delenv("HF_HUB_OFFLINE")
        find("hvm1@448_none", download=False)
    monkeypatch.setattr(hub, "hub_library", lambda: None)
    with pytest.raises(hub.NotHereError, match="pip install huggingface_hub"):
        find("videomae-base")
    for wrong in ("hf://owner/file", "hf://a/b/../c", "hf://a b/c/d"):
        with pytest.raises(ValueError, match="is not of the form hf://owner/name/file"):
            find(wrong)
