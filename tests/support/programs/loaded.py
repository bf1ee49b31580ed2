"""What tests/support/started.py loads once: no more than imports, so that no thread runs when a process is forked from it.

The last lines load what torch and deepspeed import when a model, an engine and an optimizer are made: 2 to 3 s of CPU.
"""

import vidmae

import matplotlib.pyplot  # noqa: F401  # isort: skip
import pandas  # noqa: F401
import pyarrow.csv  # noqa: F401
import submitit  # noqa: F401
import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.nn
import torch.distributed.tensor
import torch.onnx
import torch.testing

import vidmae.ranks.engine
import vidmae.train.cell
import vidmae.train.pretrain

vidmae.ranks.engine._deepspeed(torch.device("cpu"))
