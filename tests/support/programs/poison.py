"""The training program with a fault: on some windows of the data the loss of the last rank is NaN."""

import sys

from vidmae.ranks import watchdog
from vidmae.runs.nonfinite import window_of
from vidmae.train import pretrain

POISONED, NOW = {int(w) for w in sys.argv[1].split(",")}, [False]
read, build = pretrain.clip_loader, pretrain.build_model


def watched_loader(config, manifest, plan, *, rank, start, skipped, **kwargs):
    for i, batch in enumerate(read(config, manifest, plan, rank=rank, start=start, skipped=skipped, **kwargs)):
        window = window_of(start + i // plan.grad_accum, skipped)
        NOW[0] = rank == plan.world_size - 1 and window in POISONED
        yield batch


def faulty_model(config):
    model = build(config)
    model.register_forward_hook(lambda module, args, loss: loss * float("nan") if NOW[0] else None)
    return model


pretrain.clip_loader, pretrain.build_model = watched_loader, faulty_model
watchdog.end_process(pretrain.main(sys.argv[2]))
