"""A recipe for the command that is to run it: one of the other kind is refused with the command that takes it."""

from __future__ import annotations

from vidmae.settings.config import PretrainConfig, RunConfig, find_recipe
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, Layer, build, read_yaml

COMMANDS: dict[type[RunConfig], str] = {
    PretrainConfig: "python jobs/pretrain.py",
    FinetuneConfig: "python sweeps/fewshot.py",
}


def read_recipe(name: str, schema: type[RunConfig]) -> Layer:
    """Read a recipe as a layer of a configuration.

    Args:
        name: As for `config.find_recipe`.
        schema: What the layer is for.
    Raises:
        ConfigError: There is no such recipe, or it fits the other schema alone.
    """
    path = find_recipe(name)
    layer = read_yaml(path, f"recipe {path.name}")
    kinds = [kind for kind in COMMANDS if _fits(layer, kind)]
    if kinds and schema not in kinds:
        raise ConfigError(f"{layer.origin} is for another command: {COMMANDS[kinds[0]]} --recipe {name}")
    return layer


def _fits(layer: Layer, schema: type[RunConfig]) -> bool:
    try:
        build(schema, [layer])
    except ConfigError:
        return False
    return True
