"""What may be done to labelled clips on the device, beyond crop and flip: RandAugment, mixup, CutMix. Off by default.

The operations are kornia's: of the kept libraries the one that needs no torchvision. Randomness comes from torch's global
generator, which the loop seeds for every micro-batch.

Letters: B clips, T H W frames and px, C channels, N classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidmae.settings.finetune_config import LabelledConfig


class Augment:
    """The augmentations of a recipe.

    Args:
        data: The recipe's section; at least one of rand_augment, mixup and cutmix is on.
        num_classes: N.
        mean: Pixel mean that the model is fed with, for pixels in 0..1.
        std: Pixel deviation.
    """

    def __init__(self, data: LabelledConfig, num_classes: int, *, mean: float, std: float) -> None:
        import kornia.augmentation as K

        self._data, self._num_classes, self._mean, self._std = data, num_classes, mean, std
        self._rand = K.auto.RandAugment(n=data.rand_augment, m=round(data.rand_magnitude)) if data.rand_augment else None
        self._mixup = K.RandomMixUpV2(p=1.0, data_keys=["input", "class"]) if data.mixup else None
        self._cutmix = K.RandomCutMixV2(p=1.0, beta=torch.tensor(data.cutmix), use_correct_lambda=True,
                                        data_keys=["input", "class"]) if data.cutmix else None

    @staticmethod
    def wanted(data: LabelledConfig) -> bool:
        """Whether a recipe has any of them on."""
        return bool(data.rand_augment or data.mixup or data.cutmix)

    def __call__(self, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Change clips and blend their labels.

        Args:
            clips: uint8 [B, T, H, W, C].
            labels: int64 [B].
        Returns:
            Normalised float32 [B, C, T, H, W] and targets float32 [B, N], whose rows sum to 1.
        """
        pixels = clips.permute(0, 1, 4, 2, 3).float() / 255  # [B, T, C, H, W]
        if self._rand is not None:
            pixels = torch.stack([self._rand_augment(clip) for clip in pixels])
        targets = F.one_hot(labels, self._num_classes).float()
        if mixes := [mix for mix, on in ((self._mix_up, self._mixup), (self._cut_mix, self._cutmix)) if on is not None]:
            mix = mixes[int(torch.randint(len(mixes), ()))]
            mixed, first, second, share = mix(pixels.flatten(1, 2), labels)
            pixels = mixed.view_as(pixels)
            one, other = (F.one_hot(label, self._num_classes) for label in (first, second))
            targets = share[:, None] * one + (1 - share[:, None]) * other
        return ((pixels - self._mean) / self._std).transpose(1, 2), targets

    def _rand_augment(self, clip: Tensor) -> Tensor:
        """The same operations with the same strength on every frame: each is drawn from the same state."""
        assert self._rand is not None
        seed = int(torch.randint(2**31, ()))
        frames = []
        with torch.random.fork_rng(devices=[clip.device] if clip.is_cuda else []):
            for frame in clip:
                torch.manual_seed(seed)
                frames.append(self._rand(frame[None])[0])
        return torch.stack(frames)

    def _mix_up(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Blended pixels, the two labels of each clip, and the share of the first."""
        assert self._mixup is not None
        params = self._mixup.forward_parameters(pixels.shape)
        alpha = torch.tensor(self._data.mixup)
        params["mixup_lambdas"] = torch.distributions.Beta(alpha, alpha).sample((len(pixels),)).to(pixels.device)
        mixed, blend = self._mixup(pixels, labels, params=params)
        return mixed, blend[:, 0].long(), blend[:, 1].long(), 1 - blend[:, 2]

    def _cut_mix(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `_mix_up`; the same box in all frames of a clip."""
        assert self._cutmix is not None
        mixed, blend = self._cutmix(pixels, labels)
        return mixed, blend[0, :, 0].long(), blend[0, :, 1].long(), blend[0, :, 2]
