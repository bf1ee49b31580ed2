"""The training program with a fault: `hang.py STEP RUN`; the forward pass of a step does not end, on the device itself."""

import sys
import time

import torch

from vidmae.ranks import watchdog
from vidmae.train import pretrain

AT, HANGS_S, CALLS = int(sys.argv[1]), 120.0, [0]
build = pretrain.build_model


def hang(module, inputs):
    CALLS[0] += 1
    if CALLS[0] <= AT:
        return
    if torch.cuda.is_available() and inputs[0].is_cuda:
        torch.cuda._sleep(int(HANGS_S * 2e9))  # cycles: a kernel that keeps the card; the next copy to the host waits for it
    else:
        time.sleep(HANGS_S)


def faulty_model(config):
    model = build(config)
    model.register_forward_pre_hook(hang)
    return model


pretrain.build_model = faulty_model
watchdog.end_process(pretrain.main(sys.argv[2]))
