"""Folders of deepspeed's shards, made by hand: weights that do not learn, and opening a folder as any other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vidmae
from vidmae.model.classifier import build_classifier
from vidmae.model.formats.file_model import model_in
from vidmae.model.formats.zero_shards import read_shards
from vidmae.model.weights import load_encoder
from vidmae.weights.converting import convert
from vidmae.weights.finding import find

RANKS = 12


def runs(tensor: torch.Tensor) -> list[torch.Tensor]:
    """One run of the numbers for each rank, the last ones filled up."""
    length = -(-tensor.numel() // RANKS)
    return list(torch.nn.functional.pad(tensor.flatten(), (0, length * RANKS - tensor.numel())).view(RANKS, length))


def test_frozen_weights_of_twelve_ranks_are_in_order(tmp_path: Path) -> None:
    learned, frozen = torch.arange(35.0).view(5, 7), torch.arange(48.0).view(6, 8)
    for rank, (a, b) in enumerate(zip(runs(learned), runs(frozen), strict=True)):
        torch.save({"param_shapes": [{"m.a": (5, 7)}], "frozen_param_shapes": {"m.b": (6, 8)}, "frozen_param_fragments": {"m.b": b.clone()}},
                   tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        torch.save({"optimizer_state_dict": {"fp32_flat_groups": [a.clone()], "partition_count": RANKS}},
                   tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    found = read_shards(tmp_path)
    assert torch.equal(found["a"], learned) and torch.equal(found["b"], frozen)
    (tmp_path / "zero_pp_rank_3_mp_rank_00_model_states.pt").unlink()
    with pytest.raises(ValueError, match=r"model files of ranks \[0, 1, 2, 4, .* in those of 12 ranks; copy the others"):
        read_shards(tmp_path)


def test_a_folder_of_shards_is_opened_and_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_classifier("vit_nano_patch8", num_classes=3, img_size=16, num_frames=4)
    folder = tmp_path / "step/global_step7"
    folder.mkdir(parents=True)
    torch.save({"module": {f"classifier.{name}": tensor for name, tensor in model.state_dict().items()}}, folder / "mp_rank_00_model_states.pt")
    convert(find(tmp_path / "step"), tmp_path / "one.safetensors")
    again = build_classifier("vit_nano_patch8", num_classes=3, img_size=16, num_frames=4)
    load_encoder(again, tmp_path / "step")
    for opened in (vidmae.load(tmp_path / "step"), vidmae.load(folder), vidmae.load(tmp_path / "one.safetensors"), again):
        assert all(torch.equal(tensor, opened.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert model_in(tmp_path / "step") is None
