"""How large everything in the kit is: `full` for a GPU, `smoke` for the same lines in a minute on two cores."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vidmae.settings.config import ModelConfig
from vidmae.settings.sizes import ModelShape, model_shape


@dataclass(frozen=True)
class Scale:
    """One of the two scales.

    Attributes:
        name: full or smoke.
        main: The model that matters most, by its mae_vit name, and settings of ModelConfig.
        second: Another one.
        small: For whatever is checked and not timed.
        first_batch, most_batch: Clips per micro-batch: where doubling begins, and where it ends at the latest.
        timed_s: Seconds that a step is repeated for.
        least_steps: Steps that are timed at least.
        blocks: Depth and clips of the check at ViT-B's width.
        train_s: Seconds of a real run, from its first step.
        save_every: Steps between its checkpoints, for main and second.
        global_batch: Of the real runs.
        loader_s: Seconds that a loader is measured for.
        copies: Copies of a recording, which stand for as many recordings.
        inductor: torch.compile generates code; False goes through its front end alone, which takes seconds and not minutes.
    """

    name: str
    main: ModelConfig
    second: ModelConfig
    small: ModelConfig
    first_batch: int
    most_batch: int
    timed_s: float
    least_steps: int
    blocks: tuple[int, int]
    train_s: float
    save_every: tuple[int, int]
    global_batch: int
    loader_s: float
    copies: int
    inductor: bool

    def models(self) -> dict[str, ModelConfig]:
        """The models that are timed, the main one first; the smoke run has one."""
        return {config.name.removeprefix("mae_"): config for config in (self.main, self.second)}


_NANO = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=4, pred_t_dim=4, decoder_embed_dim=48, decoder_depth=1,
                    decoder_num_heads=3, mask_ratio=0.75)
FULL = Scale(
    name="full", main=ModelConfig(), second=ModelConfig(name="mae_vit_base_patch16"),
    small=ModelConfig(name="mae_vit_tiny_patch16", img_size=112, decoder_embed_dim=192, decoder_depth=2, decoder_num_heads=6),
    first_batch=8, most_batch=1024, timed_s=0.6, least_steps=3, blocks=(2, 4), train_s=60.0, save_every=(25, 60),
    global_batch=256, loader_s=8.0, copies=32, inductor=True)
SMOKE = Scale(
    name="smoke", main=_NANO, second=_NANO, small=_NANO, first_batch=4, most_batch=4,
    timed_s=0.0, least_steps=1, blocks=(1, 1), train_s=0.2, save_every=(2, 2), global_batch=8, loader_s=0.5, copies=4,
    inductor=False)
SCALES = {scale.name: scale for scale in (FULL, SMOKE)}


def at_width_of_base(scale: Scale) -> tuple[ModelShape, int]:
    """A few blocks as wide as ViT-B's, and how many clips."""
    depth, clips = scale.blocks
    whole = scale.name == "full"
    shape = model_shape("mae_vit_base_patch16", img_size=224 if whole else 32, num_frames=16 if whole else 4,
                        pred_t_dim=16 if whole else 4, mask_ratio=0.9 if whole else 0.75)
    return replace(shape, depth=depth, decoder_depth=1), clips
