"""The float32 weights in a folder of deepspeed's checkpoints, of any ZeRO stage and any number of ranks, without deepspeed.

    stage 0          mp_rank_00_model_states.pt has all weights
    stages 1 and 2   the ranks' optim_states.pt hold, group by group, equal runs of all numbers of a group
    stage 3          they hold a run of each parameter, one parameter behind the other

Files are opened without running code from them: classes of deepspeed become objects that do nothing, others are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidmae.model.formats.weight_files import MODEL_FILE, RANK_FILE

OF_GROUPS, OF_PARAMETERS = "single_partition_of_fp32_groups", "fp32_flat_groups"  # in stages 1 and 2; in stage 3


class Inert:
    """Stands for an object of deepspeed, and does nothing."""

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_shards(folder: Path) -> dict[str, Tensor]:
    """All weights, float32. What stands before every name, as that of a model inside another, is left away.

    Args:
        folder: From `weight_files.folder_with_shards`.
    Raises:
        ValueError: Shards are missing or damaged, or the model itself was split among ranks.
    """
    names = sorted(file.name for file in folder.iterdir())
    models = sorted((name for name in names if MODEL_FILE.match(name)), key=_rank_of)
    if len({match[1] for name in models if (match := MODEL_FILE.match(name))}) > 1:
        raise ValueError(f"{folder} is of a model that was itself split among ranks (model parallelism); weights of such "
                         "are not joined here")
    ranks = {int(match[1]): name for name in names if (match := RANK_FILE.match(name)) and match[3] == "optim"}
    first = _open(folder / models[0])
    optim = [_open(folder / ranks[rank])["optimizer_state_dict"] for rank in sorted(ranks)]
    key = next((key for key in (OF_GROUPS, OF_PARAMETERS) if optim and key in optim[0]), None)
    module = first.get("module") or {}
    if key is None:
        if not module:
            raise ValueError(f"{folder} has no weights: {models[0]} holds no module")
        return _unwrapped({name: tensor.float() for name, tensor in module.items()})
    counts = optim[0].get("partition_count")
    wanted = max(counts) if isinstance(counts, (list, tuple)) else counts or len(optim)
    if sorted(ranks) != list(range(wanted)):
        raise ValueError(f"{folder} has the shards of ranks {sorted(ranks)}, and the weights are in those of {wanted} "
                         "ranks; copy the others, too")
    groups = first["param_shapes"]
    groups = [groups] if isinstance(groups, Mapping) else groups
    found = dict(_of_groups(optim, groups) if key == OF_GROUPS else _of_parameters(optim, groups))
    found |= {name: module[name].float() for name in first.get("buffer_names") or () if name in module}
    found |= _frozen(folder, first, *((models, wanted) if key == OF_PARAMETERS else (models[:1], 1)))
    found |= {name: found[other] for name, other in first.get("shared_params") or () if other in found}
    return _unwrapped(found)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    tops = {name.partition(".")[0] for name in state}
    return {name.partition(".")[2]: tensor for name, tensor in state.items()} if len(tops) == 1 and len(state) > 1 else state


def _of_groups(optim: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    for index, shapes in enumerate(groups):
        line = torch.cat([shard[OF_GROUPS][index] for shard in optim])
        at = 0
        for name, shape in shapes.items():
            yield name, _cut(line, at, shape, name)
            at += math.prod(shape)


def _of_parameters(optim: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    lines = [torch.cat(list(shard[OF_PARAMETERS])) for shard in optim]
    at = 0
    for shapes in groups:
        for name, shape in shapes.items():
            run = -(-math.prod(shape) // len(lines))
            yield name, _cut(torch.cat([line[at:at + run] for line in lines]), 0, shape, name)
            at += run


def _rank_of(name: str) -> int:
    match = re.search(r"zero_pp_rank_(\d+)_", name)
    return int(match[1]) if match else 0


def _frozen(folder: Path, first: Mapping[str, Any], models: Sequence[str], wanted: int) -> dict[str, Tensor]:
    """Parameters that do not learn have no float32 copy: in stage 3 each rank has a run of them, else the first has all."""
    shapes = first.get("frozen_param_shapes") or {}
    if not shapes:
        return {}
    if (ranks := [_rank_of(name) for name in models]) != list(range(wanted)):
        raise ValueError(f"{folder} has the model files of ranks {ranks}, and frozen weights are in those of {wanted} "
                         "ranks; copy the others, too")
    files = [first, *(_open(folder / name) for name in models[1:])]
    return {name: _cut(torch.cat([file["frozen_param_fragments"][name].flatten() for file in files]), 0, shape, name).float()
            for name, shape in shapes.items()}


def _cut(line: Tensor, at: int, shape: Sequence[int], name: str) -> Tensor:
    if at + math.prod(shape) > len(line):
        raise ValueError(f"the shards end before {name}: they hold {len(line)} numbers, and {at + math.prod(shape)} are "
                         "needed")
    return line[at:at + math.prod(shape)].reshape(tuple(shape)).float()


def _open(path: Path) -> Any:
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if foreign := [name for name in named if not name.startswith("deepspeed.")]:
            raise ValueError(f"it names {foreign[0]}, which is none of deepspeed's classes")
        with torch.serialization.safe_globals([(Inert, name) for name in named]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a shard of deepspeed ({type(error).__name__}: {str(error)[:100]})"
                         ) from error
