"""What a smoke run loads once for all its programs; `vidmae` first, which sets what must be set before torch is loaded."""

import vidmae

import torch  # isort: skip
import torch._dynamo
import torch._functorch.aot_autograd

import tests.gpu.steps  # noqa: F401
import vidmae.ranks.engine
import vidmae.train.trainer

vidmae.ranks.engine._deepspeed(torch.device("cpu"))
