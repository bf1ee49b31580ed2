"""Texts of configurations and records that share most of what they hold: those of yaml and json, to the character."""

import json
import re
from dataclasses import replace

import pytest

from vidmae.runs.record import signature, signature_of_text
from vidmae.settings.config import PretrainConfig, find_recipe
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, read_yaml, to_dict, to_yaml
from vidmae.settings.texts_of_cells import Texts, joined

NAMES = ("say-toys-2shot-seed0-finetune", "yes", "no", "on", "y", "null", "~", "", "1", "1e3", "1_0", "0x1f", "1.5", ".5", "2026-11-29", "12:30",
         "a b", " a", "a ", "a: b", "a #b", "- a", "[a]", "{a}", "'a'", '"a"', "ä/ö", "a\nb", "@a", "%a", "!a", "&a", "*a", "a" * 200,
         " ".join(["word"] * 40), "/videos/" + " ".join(["a long path"] * 12) + "/s.csv", "=", "<<", "true", "False", "a,b", "a?b", "NaN", "\U0001f600")


@pytest.fixture(scope="module")
def base() -> FinetuneConfig:
    return build(FinetuneConfig, [read_yaml(find_recipe("finetune_demo")), *parse_set(["train.clip_grad=0.1"])])[0]


def variations(config: FinetuneConfig):
    """One configuration after the other, most of whose fields are the same objects; some come again."""
    for i, text in enumerate(NAMES):
        data = replace(config.data, subset=text, shots=(2, 0, 0)[i % 3], fraction=(0.0, 0.25, 1e-5)[i % 3])
        name = text if re.fullmatch(r"[\w][\w.-]*", text) else f"x{i}"
        yield replace(config, name=name, seed=i % 2, data=data)
        yield replace(config, data=replace(data, manifest=text))
    for decay in (0.05, 1e-4, 1e17, 1.0, 0.05, 123456.789, 1e-7):
        yield replace(config, train=replace(config.train, weight_decay=decay, init=f"/weights/{decay}"))
    for value in (True, 1, False, 2, True):  # 1 and true are equal in Python, and other texts
        yield replace(config, model=replace(config.model, activation_checkpointing=value))
    yield config


def test_yaml_is_that_of_to_yaml(base):
    texts = Texts()
    for config in variations(base):
        assert texts.yaml(config) == to_yaml(config)
    for name in ("demo", "pretrain_s_vith14"):
        config = build(PretrainConfig, [read_yaml(find_recipe(name))])[0]
        assert Texts().yaml(config) == to_yaml(config) == texts.yaml(config)


def test_signatures_are_those_of_before(base):
    texts = Texts()
    for config in variations(base):
        signed = to_dict(config, signed_only=True)
        del signed["name"]
        text = texts.signed(config, without=("name",))
        assert text == json.dumps(signed, sort_keys=True, separators=(",", ":"))
        assert signature_of_text("fewshot", text, "ab") == signature("fewshot", signed, "ab")


def test_records_are_those_of_json():
    texts, command = Texts(), ("python", "sweeps/fewshot.py", 'a"b', "ä")
    entry = {"state": "submitting", "job_id": None, "command": command, "nested": {"a": {}, "b": [], "c": [{"d": 1.5}, []], "e": [[1, 2], True]}}
    for task in range(3):
        record = {"schema": 1, "cell": {"overrides": {"a.b": "1"}, "seed": task}, "submissions": [{"x": task}, {**entry, "task": task}], "last": None}
        for _ in range(2):
            assert texts.json(record) == json.dumps(record, indent=2)
            record["submissions"][-1].update(state="submitted", job_id=f"7_{task}")
            first, *others = [{key: value} for key, value in record.items()]
            assert joined(texts.json(first), *map(texts.json, others)) == json.dumps(record, indent=2)
    assert texts.json({}) == "{}"
    with pytest.raises(ValueError, match="JSON compliant"):
        texts.json({"a": float("nan")})
