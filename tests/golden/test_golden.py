"""Kept files in the layouts of other families give the tokens that another implementation gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.golden.make_golden import DEPTH, HEADS, HERE, MAKERS, TOLERANCE, WIDTH, differing, read
from tests.vidmae.weights.families import FRAMES, PATCH, SIDE
from vidmae.model.classifier import VideoClassifier
from vidmae.model.formats.file_model import FileModel
from vidmae.model.formats.keys import shapes_of
from vidmae.model.formats.layouts import LAYOUTS, layout_of
from vidmae.model.formats.tensor_shapes import clean_name
from vidmae.model.formats.translate import as_ours
from vidmae.model.weights import load_into
from vidmae.settings.sizes import EncoderShape


def ours(layout: str) -> tuple[VideoClassifier, np.ndarray, torch.Tensor]:
    """This suite's model with the file's weights, the clips that it takes, and the tokens of another implementation."""
    state, clips, tokens = read(layout)
    state = {clean_name(name): tensor for name, tensor in state.items()}
    assert layout_of(shapes_of(state)) == layout
    frames, per_slot = (1, 1) if "image" in layout else (FRAMES, 2)
    shape = EncoderShape("vit_narrow_patch8", SIDE, frames, per_slot, PATCH, WIDTH, DEPTH, HEADS, positions=LAYOUTS[layout].positions)
    model = VideoClassifier(shape, num_classes=None, pool="cls" if shape.positions == "learned" else "mean").eval()
    load_into(model, as_ours(state, FileModel(layout, shape), mean=model.mean, std=model.std).state)
    return model, clips[:, :frames], tokens


@pytest.mark.parametrize("layout", MAKERS)
def test_tokens_are_those_that_were_kept(layout: str) -> None:
    model, clips, tokens = ours(layout)
    with torch.no_grad():
        found = model.tokens(torch.from_numpy(clips))
    assert tokens.std() > 0.1 and found.shape == tokens.shape
    assert (found - tokens).abs().max() < TOLERANCE


def test_one_file_for_each_kind_and_none_besides() -> None:
    assert {path.stem for path in HERE.glob("*.safetensors")} == set(MAKERS)


def test_a_changed_weight_shows() -> None:
    model, clips, tokens = ours("videomae")
    with torch.no_grad():
        model.blocks[5].attn.q.bias += 0.01
        assert (model.tokens(torch.from_numpy(clips)) - tokens).abs().max() > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("layout", MAKERS)
def test_the_script_makes_what_is_kept(layout: str) -> None:
    """Slow, since another release of torch may draw other weights: then look whether only those differ, and make them again."""
    assert differing(layout) == []
