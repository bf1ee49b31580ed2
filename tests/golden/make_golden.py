"""Make the files of this folder: `python -m tests.golden.make_golden`; `--check` says what differs from those that are here.

A file NAME.safetensors has random weights under the names of its layout (`file.` before each), a clip `clips` of uint8
[B, T, H, W, 3], and `tokens` [B, L, D] in float32: what transformers computes after its last norm. Weights are rounded to 16
bits first, so that a file is small and both sides compute with the same numbers. The version of transformers is in the header.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from tests.vidmae.weights import families as f

HERE = Path(__file__).resolve().parent
WIDTH, DEPTH, HEADS = f.SIZES["narrow"][:3]
CLIPS = np.random.default_rng(1).integers(0, 256, (2, f.FRAMES, f.SIDE, f.SIDE, 3), dtype=np.uint8)
TOLERANCE = 1e-5
Made = tuple[f.State, torch.Tensor]


def rounded(model: Any) -> Any:
    """The model, its weights as 16 bits hold them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


def of_videomae(names: Callable[[f.State], f.State]) -> Made:
    whole = rounded(f.videomae("narrow"))
    return names(whole.state_dict()), whole.videomae(f.pixels(CLIPS)).last_hidden_state


def first_vjepa() -> Made:
    theirs = rounded(f.videomae("narrow").videomae)
    table = f.sines_of_places(f.FRAMES // 2, f.SIDE // f.PATCH, WIDTH).half().float()
    theirs.embeddings.position_embeddings = table
    state = f.as_first_vjepa(f.as_videomae({f"videomae.{name}": t for name, t in theirs.state_dict().items()}), table)
    return state, theirs(f.pixels(CLIPS)).last_hidden_state


def of_vjepa2(names: Callable[[f.State], f.State]) -> Made:
    theirs = rounded(f.vjepa2("narrow"))
    return names(theirs.state_dict()), theirs(f.pixels(CLIPS), skip_predictor=True).last_hidden_state


def of_image_mae(names: Callable[[f.State], f.State]) -> Made:
    """Of the first frames."""
    theirs = rounded(f.image_mae("narrow"))
    frames = f.pixels(CLIPS[:, :1])[:, 0]
    patches = theirs.embeddings.patch_embeddings(frames) + theirs.embeddings.position_embeddings[:, 1:]
    first = (theirs.embeddings.cls_token + theirs.embeddings.position_embeddings[:, :1]).expand(len(frames), -1, -1)
    x = torch.cat([first, patches], dim=1)
    for layer in theirs.layers:
        x = layer(x)
    return names(theirs.state_dict()), theirs.layernorm(x)[:, 1:]


MAKERS: dict[str, Callable[[], Made]] = {
    "videomae": lambda: of_videomae(f.as_videomae),
    "hf-videomae": lambda: of_videomae(dict),
    "vjepa": first_vjepa,
    "vjepa2": lambda: of_vjepa2(f.as_vjepa),
    "hf-vjepa2": lambda: of_vjepa2(dict),
    "image-mae": lambda: of_image_mae(f.as_image_mae),
    "hf-image-mae": lambda: of_image_mae(f.as_hub_image_mae),
}


def made(layout: str) -> dict[str, torch.Tensor]:
    """The tensors of a layout's file."""
    torch.manual_seed(2)
    with torch.no_grad():
        state, tokens = MAKERS[layout]()
    kept = {f"file.{name}": tensor.half().contiguous() for name, tensor in state.items() if "decoder" not in name and "predictor" not in name}
    return {**kept, "clips": torch.from_numpy(CLIPS), "tokens": tokens.contiguous()}


def read(layout: str) -> tuple[f.State, np.ndarray, torch.Tensor]:
    """Weights in float32 under the names of the layout, clips, and tokens."""
    with safe_open(HERE / f"{layout}.safetensors", "pt") as file:
        state = {name.removeprefix("file."): file.get_tensor(name).float() for name in file.keys() if name.startswith("file.")}  # noqa: SIM118
        return state, file.get_tensor("clips").numpy(), file.get_tensor("tokens")


def differing(layout: str) -> list[str]:
    """Names of tensors that are not (tokens: not to 1e-5) what is made now."""
    now = made(layout)
    with safe_open(HERE / f"{layout}.safetensors", "pt") as file:
        names = set(file.keys()) ^ set(now)
        for name in set(file.keys()) & set(now):
            kept, close = file.get_tensor(name), TOLERANCE if name == "tokens" else 0
            if kept.shape != now[name].shape or not torch.allclose(kept.float(), now[name].float(), rtol=0, atol=close):
                names.add(name)
    return sorted(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file differs")
    if parser.parse_args().check:
        wrong = {layout: names for layout in MAKERS if (names := differing(layout))}
        print("\n".join(f"{layout}: {', '.join(names[:5])} differ" for layout, names in wrong.items()) or "all are as made now")
        return 1 if wrong else 0
    for layout in MAKERS:
        save_file(made(layout), HERE / f"{layout}.safetensors", {"made_with": f"transformers {transformers.__version__}"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
