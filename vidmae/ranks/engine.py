"""The only import of deepspeed: configuration in, an engine with step, save, load and full weights out.

Precision and ZeRO stage (what each combination becomes):

    precision   stage 0                        stages 1 to 3
    fp32        plain                          sharded fp32
    bf16        fp32 weights under autocast    bf16 weights, sharded fp32 master weights
    fp16        refused (no loss scaler)       fp16 weights, sharded fp32 master weights, dynamic loss scale

Stage 0 goes through autocast because deepspeed's own bf16 optimizer counts one empty update at its start, which makes
the first real one 0.735 of the learning rate (measured with deepspeed 0.19.8).

An update reads from the device once: the loss, the numbers that are averaged over the ranks, and the norm of the gradients
come in one copy, before any weight changes (`_Norms`). Left to itself deepspeed asks five to six times, and with an
optimizer in the host's memory once for every parameter in the backward pass and once more after it; a GPU then idles until
the next kernels come. What deepspeed still asks for: with fp16 whether a gradient overflowed, with the optimizer in the
host's memory the sum of each group's norms, and in CUDA a wait for small numbers that it copies to the device.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from vidmae.ranks.dist import Ranks
from vidmae.ranks.reshard import OldShards, group_lengths, layout, run_length
from vidmae.ranks.shard_writer import host_copy
from vidmae.runs.step_time import BUCKET_NUMBERS
from vidmae.settings.config import TrainConfig

TAG = "state"


class NonFiniteError(RuntimeError):
    """The loss or a gradient is NaN or infinite; the weights were not updated."""


def _deepspeed(device: torch.device) -> Any:
    """Import deepspeed, quietly and without its shared-memory collectives.

    Those are compiled on first use (a minute) and leave segments in /dev/shm behind; gloo does without. It would also ask
    NVML for free memory where pynvml is installed, and take CUDA_VISIBLE_DEVICES for numbers, which may be names (GPU-1a).
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import deepspeed.ops
    from deepspeed.accelerator import cuda_accelerator
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    cuda_accelerator.pynvml = None
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    _import_muon_uncompiled()
    return deepspeed


def load_deepspeed(device_type: str) -> None:
    """Import deepspeed before an engine needs it, as `Engine` does."""
    _deepspeed(torch.device(device_type))


def _import_muon_uncompiled() -> None:
    """Import deepspeed's Muon before deepspeed does, with its kernels left as they are written.

    ZeRO asks of every optimizer whether it is a Muon. At its import that module hands three kernels, which are never
    called here, to torch.compile, and every rank would import the whole of torch._inductor for them.
    """
    with mock.patch.object(torch, "compile", lambda kernel: kernel):
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401


def engine_config(train: TrainConfig, *, micro_batch: int, grad_accum: int, device: torch.device) -> dict[str, Any]:
    """The deepspeed configuration of a run.

    Raises:
        ValueError: fp16 without a GPU.
    """
    if train.precision == "fp16" and device.type == "cpu":
        raise ValueError("train.precision fp16 needs a GPU; on the CPU use bf16 or fp32 (--set train.precision=bf16)")
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": grad_accum,
        "gradient_clipping": train.clip_grad,
        "zero_optimization": {"stage": train.zero_stage, "overlap_comm": device.type == "cuda"},
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is as fast on a CPU, and needs no compiler
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    if device.type == "cuda":  # deepspeed's own buckets hold half a ViT-H: nothing would overlap, for 2 GB of buffers
        config["zero_optimization"] |= {"reduce_bucket_size": BUCKET_NUMBERS, "allgather_bucket_size": 4 * BUCKET_NUMBERS}
    if train.offload == "optimizer":
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if train.precision == "bf16" and train.zero_stage == 0:
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif train.precision != "fp32":
        config[train.precision] = {"enabled": True}
    if "bf16" in config:  # the norm says as much, which `Engine.update` looks at; this would read every gradient once more
        config["bf16"]["check_grad_overflow"] = False
    return config


class Engine:
    """A model that trains over all ranks.

    Args:
        model: Returns a scalar loss.
        groups: Parameter groups for AdamW.
        train: The recipe's section.
        ranks: From `dist.init`.
        micro_batch: Clips per rank and forward pass.
        grad_accum: Forward passes per update.
        averages: Keep a running average of the float32 weights, which begins as they are and moves with `move_average`. Each
            rank has that of its own master weights; checkpoints hold it.
    """

    def __init__(self, model: nn.Module, groups: list[dict[str, Any]], train: TrainConfig, ranks: Ranks, *,
                 micro_batch: int, grad_accum: int, averages: bool = False) -> None:
        config = engine_config(train, micro_batch=micro_batch, grad_accum=grad_accum, device=ranks.device)
        deepspeed = _deepspeed(ranks.device)
        learning = [[p for p in group["params"] if p.requires_grad] for group in groups]
        names = {parameter: name for name, parameter in model.named_parameters()}
        self._names = [[(names[p], p.shape) for p in group] for group in learning]  # whole shapes: nothing is sharded yet
        self._sizes = [[p.numel() for p in group] for group in learning]
        model = model.to(ranks.device)
        # fused: 4 to 5 times the default loop on the CPU, as fast as deepspeed's own kernels and nothing to compile
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=train.betas, fused=True)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._engine.checkpoint_engine = self._files = _Files()
        self._engine._copy_recovery_script = lambda _: None  # two programs that it would add to each checkpoint
        _name_own_files(self._engine)
        self._ranks, self._train, self._grad_accum = ranks, train, grad_accum
        self._losses: list[Tensor] = []
        self._sums: Tensor = torch.empty(0)
        self._read: list[float] | None = None
        self._average = [torch.zeros_like(weight) for weight in self._masters()] if averages else []
        for average, weight in self._averaged_parts():
            average.copy_(weight)
        if train.zero_stage:
            self._norms = _Norms(self._engine.optimizer, self._look, skips=train.precision == "fp16")

    @property
    def module(self) -> nn.Module:
        """The model; under ZeRO-3 its parameters are sharded."""
        module: nn.Module = self._engine.module
        return module

    @property
    def skipped_steps(self) -> int:
        """Updates that fp16's loss scaler has skipped so far."""
        return int(self._engine.skipped_steps)

    @property
    def losses(self) -> Tensor:
        """This rank's loss of each micro-batch since the last update, float64 on the device."""
        return torch.stack(self._losses).double()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next update; a group's own is `lr_scale` of it, where it has one."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def backward(self, *inputs: Any) -> None:
        """Forward and backward of one micro-batch."""
        loss = self._engine(*inputs)
        self._losses.append(loss.detach())
        self._engine.backward(loss)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the micro-step, updates nothing

    def update(self, *, extra: list[float], watched: Sequence[Tensor] = ()) -> tuple[float, float, list[float]]:
        """Update the weights after `grad_accum` calls of `backward`.

        Args:
            extra: Further numbers to average over the ranks in the same collective.
            watched: More of them, that lie on the device; none is read there before.
        Returns:
            Mean loss over all clips of the step, global gradient norm before clipping, the averaged extras.
        Raises:
            NonFiniteError: On every rank alike and before any weight changed.
        """
        more = torch.tensor(extra, dtype=torch.float64).to(self._ranks.device, non_blocking=True)
        numbers = [self.losses.sum()[None], more, *(each.double().reshape(-1) for each in watched)]
        self._sums, self._read = self._ranks.sum_tensor(torch.cat(numbers)), None
        self._losses.clear()
        skipped, norm = self.skipped_steps, None
        if self._train.zero_stage == 0:
            norm = float(self._look([self._plain_grad_norm()])[0])
        self._engine.step()  # in stages 1 to 3 this looks, once it has the norm
        if self._read is None:  # fp16 skips an update before there is a norm
            self._look([])
        assert self._read is not None
        loss, *sums = self._read
        if norm is None:
            norm = float(self._engine.get_global_grad_norm() or 0.0)
        if self._train.precision != "fp16" and (self.skipped_steps > skipped or not norm < float("inf")):
            raise NonFiniteError(f"the gradient norm is {norm}")
        return loss, norm, [s / self._ranks.world_size for s in sums]

    def _look(self, norms: Sequence[Tensor]) -> list[Tensor]:
        """Read loss, extras and norms in one copy to the host, before the update: what is not finite must not reach the
        weights.

        Args:
            norms: Of the gradients, one number each; deepspeed writes -1 where one is not finite.
        Returns:
            The same norms in the host's memory.
        Raises:
            NonFiniteError: The loss or, without fp16's loss scale, a norm is not finite; on every rank alike.
        """
        here = [norm.detach().double().reshape(1).to(self._sums.device, non_blocking=True) for norm in norms]
        numbers = torch.cat([self._sums, *here]).tolist()
        read, found = numbers[:len(self._sums)], numbers[len(self._sums):]
        loss = read[0] / (self._ranks.world_size * self._grad_accum)
        if loss != loss or abs(loss) == float("inf"):
            raise NonFiniteError(f"the loss is {loss}")
        bad = [norm for norm in found if not 0 <= norm < float("inf")]
        if bad and self._train.precision != "fp16":
            raise NonFiniteError(f"the gradient norm is {'not finite' if bad[0] == -1 else bad[0]}")
        self._read = [loss, *read[1:]]
        return [torch.tensor(number, dtype=norm.dtype) for number, norm in zip(found, norms, strict=True)]

    def _plain_grad_norm(self) -> Tensor:
        """Stage 0 keeps whole, already averaged gradients on every rank; deepspeed reports no norm for them."""
        grads = [p.grad for p in self.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(grads)

    def move_average(self, momentum: float) -> None:
        """Move the running average towards the weights: momentum * average + (1 - momentum) * weights, in float32."""
        for average, weight in self._averaged_parts():
            average.lerp_(weight, 1 - momentum)

    def averaged(self, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        """Every parameter's running average, whole and on the device, a group of them in memory at a time. Collective:
        exhaust it on every rank.

        Args:
            dtype: What it is cast to, before it is sent.
        """
        if self._train.zero_stage == 0:
            names = [name for group in self._names for name, _ in group] if self._average else []
            yield from zip(names, (average.to(dtype) for average in self._average), strict=True)
            return
        for shard, group in zip(self._average, self._names if self._average else [], strict=True):
            whole, at = self._ranks.gather_tensor(shard.to(self._ranks.device, dtype)), 0
            for name, shape in group:
                numel, line = shape.numel(), whole.view(-1)[at:]
                length = numel
                if self._train.zero_stage == 3:  # each parameter is cut into equal runs, and not the group
                    length = run_length(numel, 3, self._ranks.world_size)
                    line = whole[:, at:at + length].reshape(-1)
                yield name, line[:numel].view(shape)
                at += length

    def _masters(self) -> list[Tensor]:
        """The float32 weights that this rank updates: in stage 0 parameters, else what it has of each group, in one line."""
        if self._train.zero_stage == 0:
            own = dict(self.module.named_parameters())
            return [own[name].detach() for group in self._names for name, _ in group]
        optimizer = self._engine.optimizer
        by_parameter = self._train.zero_stage == 3
        flat = optimizer.fp32_partitioned_groups_flat if by_parameter else optimizer.single_partition_of_fp32_groups
        return [weights.detach() for weights in flat]

    def _averaged_parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Running average and weight, part by part; padding is left out, which nobody writes and which may be anything."""
        if not self._average:
            return
        masters, stage, ranks = self._masters(), self._train.zero_stage, self._ranks
        if stage == 0:
            yield from zip(self._average, masters, strict=True)
            return
        assert [len(each) for each in masters] == group_lengths(self._sizes, stage, ranks.world_size)
        for piece in layout(self._sizes, stage, ranks.world_size, ranks.rank):
            part = slice(piece.at, piece.at + piece.stop - piece.start)
            yield self._average[piece.group][part], masters[piece.group][part]

    def reset_optimizer(self) -> None:
        """Forget the optimizer's averages and its step count, as if it were new."""
        optimizer = self._engine.optimizer
        inner = getattr(optimizer, "optimizer", optimizer)
        for state in inner.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()

    @property
    def checkpoint_bytes(self) -> int:
        """Size of the state of all ranks: float32 weights, AdamW's two averages, a running average if one is kept, and in
        stages 1 and 2 the weights that compute."""
        number = next(self.module.parameters()).element_size() if self._train.zero_stage in (1, 2) else 0
        return sum(map(sum, self._sizes)) * (12 + number + (4 if self._average else 0))

    def rank_bytes(self, rank: int) -> int:
        """What a rank has of `checkpoint_bytes`: rank 0 in stage 0 all, in stages 1 and 2 the weights that compute, too."""
        stage, world_size, numel = self._train.zero_stage, self._ranks.world_size, sum(map(sum, self._sizes))
        if stage == 0:
            return self.checkpoint_bytes if rank == 0 else 0
        own = numel * next(self.module.parameters()).element_size() if stage in (1, 2) else 0
        return (self.checkpoint_bytes - own) // world_size + (own if rank == 0 else 0)

    def shards(self, *, copied: bool, pinned: bool = False) -> dict[str, Any]:
        """This rank's part of the state: file name in a checkpoint -> content. Collective.

        Args:
            copied: Take copies in host memory, for training to go on; else the tensors of the engine itself.
            pinned: See `host_copy`.
        """
        self._files.taken, self._files.copied, self._files.pinned = {}, copied, pinned
        self._engine.save_checkpoint("nowhere", tag=TAG, save_latest=False)
        if self._average and (self._train.zero_stage or self._ranks.is_main):
            self._files.save(self._average, average_file(self._ranks.rank))
        taken, self._files.taken = self._files.taken, {}
        return taken

    def load(self, folder: Path) -> None:
        """Read a checkpoint of the same number of ranks and ZeRO stage, to the bit. Collective."""
        path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise RuntimeError(f"deepspeed found nothing to load in {folder}")
        if self._average:
            rank = self._ranks.rank if self._train.zero_stage else 0
            self._set_average(self._files.load(folder / TAG / average_file(rank), map_location="cpu"))

    def load_resharded(self, folder: Path, *, zero_stage: int, world_size: int) -> None:
        """Read a checkpoint of another number of ranks or another stage; 1 to 3 both then and now. Collective.

        Args:
            folder: The checkpoint.
            zero_stage: Stage that it was saved in.
            world_size: Ranks that saved it.
        """
        old = OldShards(folder / TAG, stage=zero_stage, world_size=world_size, groups=self._sizes,
                        load=self._files.load)
        shard = old.shard(self._train.zero_stage, self._ranks.world_size, self._ranks.rank)
        optimizer = self._engine.optimizer
        if self._train.zero_stage == 3:
            optimizer.checkpoint_event_prologue()
        optimizer.load_state_dict([shard] * self._ranks.world_size, load_from_fp32_weights=True)
        if self._train.zero_stage == 3:
            optimizer.checkpoint_event_epilogue()
        else:
            optimizer.update_lp_params()  # the weights that compute follow the master weights; stage 3 has done it
        for name, count in old.counters.items():
            setattr(self._engine, name, count)
        if self._average:
            files = [folder / TAG / average_file(r) for r in range(world_size)]
            lines = [self._files.load(file, map_location="cpu", mmap=True) for file in files]
            self._set_average(old.cut(lines, self._train.zero_stage, self._ranks.world_size, self._ranks.rank))

    def _set_average(self, saved: Sequence[Tensor]) -> None:
        for average, before in zip(self._average, saved, strict=True):
            average.copy_(before)

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter whole and in float32 on the CPU, one at a time; then buffers that belong to the weights, such as a
        fixed table of positions. Collective: exhaust it on every rank."""
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self.module.named_parameters():
            full = parameter if self._train.zero_stage == 0 else safe_get_full_fp32_param(parameter)
            yield name, full.detach().float().cpu()
        saved = self.module.state_dict().keys()
        yield from ((name, buffer.float().cpu()) for name, buffer in self.module.named_buffers() if name in saved)


def _name_own_files(engine: Any) -> None:
    """Let deepspeed open the files of a checkpoint by their names. By itself each rank lists the folder and looks for the
    shards of all ranks: a million questions to the file system where 1,024 ranks continue. Who calls `load` has checked that
    all files are there."""
    engine._get_all_ckpt_names = lambda folder, tag: [engine._get_ckpt_name(folder, tag)]
    engine._get_all_zero_checkpoint_names = lambda folder, tag, bf16: engine._get_mp_rank_zero_checkpoint_names(
        load_dir=folder, tag=tag, mp_rank=engine.checkpoint_mp_rank, dp_world_size=engine.loaded_checkpoint_dp_world_size,
        bf16_mode=bf16)


def average_file(rank: int) -> str:
    """Name of the file of a rank's running average, in the folder of deepspeed's files."""
    return f"average_{rank:05d}.pt"


class _Norms:
    """Stands where deepspeed's ZeRO optimizer asks for norms: each is in the host's memory before anybody looks at it.

    deepspeed computes them as before; it then compares, clips and keeps numbers that wait for no device.

    Args:
        optimizer: deepspeed's, of ZeRO 1 to 3.
        look: Gives norms on the device as norms in the host's memory.
        skips: The update is skipped, and not refused, where a gradient is not finite; deepspeed then looks for itself.
    """

    def __init__(self, optimizer: Any, look: Callable[[Sequence[Tensor]], list[Tensor]], *, skips: bool) -> None:
        self._optimizer, self._look = optimizer, look
        self._of_group = optimizer.complete_grad_norm_calculation_for_cpu_offload
        if hasattr(optimizer, "scaled_global_norm"):  # stages 1 and 2
            self._norm = optimizer.scaled_global_norm
            optimizer.scaled_global_norm = self.scaled_global_norm
        else:
            self._norms = optimizer._get_norm_groups
            optimizer._get_norm_groups = self.norm_groups
        optimizer.complete_grad_norm_calculation_for_cpu_offload = self.of_parameters
        if not skips:
            optimizer.update_offload_overflow_tracker = lambda _: None  # the norm of each parameter says as much

    def scaled_global_norm(self) -> Tensor:
        return self._look([self._norm()])[0]

    def norm_groups(self) -> list[Tensor]:
        return self._look(self._norms())

    def of_parameters(self, params: Any) -> Any:
        """The norm of a group whose optimizer is in the host's memory: its parameters' norms come in one copy."""
        norms = self._optimizer.norm_for_param_grads
        if norms:
            norms.update(zip(norms, torch.stack(list(norms.values())).cpu().unbind(), strict=True))
        return self._of_group(params)


class _Files:
    """Stands where deepspeed reads and writes files: takes what it is given to write, and runs no code from what it reads.

    Attributes:
        taken: File name in a checkpoint -> state, since it was last emptied.
        copied: Take copies in host memory.
        pinned: In pinned memory.
    """

    def __init__(self) -> None:
        self.taken: dict[str, Any] = {}
        self.copied = self.pinned = False

    def save(self, state_dict: Any, path: str) -> None:
        self.taken[f"{TAG}/{Path(path).name}"] = host_copy(state_dict, pinned=self.pinned) if self.copied else state_dict

    def load(self, path: str | Path, map_location: Any = None, *, mmap: bool = False) -> Any:
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum
        from deepspeed.utils.tensor_fragment import fragment_address

        with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
            return torch.load(path, map_location=map_location, mmap=mmap, weights_only=True)

    def is_decoupled(self) -> bool:
        return False

    def create(self, info: Any) -> None:
        """Called before."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Called for each folder."""

    def commit(self, info: Any) -> None:
        """Called after."""
