"""Folders of runs that may come from anyone.

Each damaged file ends in one message with file and field, before a model is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import ROOT
from safetensors.numpy import load_file, save_file

from forecaster.errors import ConfigurationError
from forecaster.models.finished import check_weights, read_finished

BASE = ROOT / "sample" / "base"
RANK, TARGETS = 2, ["q_proj", "down_proj"]
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
FACTOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
WAY_OUT = "Take a whole copy, or train again."
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    shape = json.loads((BASE / "config.json").read_text())
    sizes = {
        "self_attn.q_proj": (shape["hidden_size"], shape["hidden_size"]),
        "mlp.down_proj": (shape["intermediate_size"], shape["hidden_size"]),
    }
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, (inputs, outputs) in sizes.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = np.ones((RANK, inputs), np.float32)
            tensors[f"{module}.lora_B.weight"] = np.ones((outputs, RANK), np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 4, "lora_dropout": 0.1}
    write(
        folder / "adapter_config.json", config | {"target_modules": TARGETS, "megatron_core": "megatron.core"}
    )
    flags = {"dataset": "rows.jsonl", "run_name": "a", "max_length": 1024, "max_new_tokens": 64}
    flags |= {"lora_r": RANK, "lora_alpha": 4, "target_modules": ",".join(TARGETS)}
    resolved = {"base_model": str(BASE), "precision": "fp32", "quantization": "none", "tuner": "lora"}
    write(folder / "run_config.json", {"flags": flags, "resolved": resolved})
    write(folder / "dataset.json", {"fingerprint_sha256": "0", "training_labels": {"up by 1-2%": 3}})
    write(folder / "log_history.json", [{"step": 1, "loss": 0.5}])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def field(name: str, *path: str, to: Any) -> Damage:
    """A field of a JSON file becomes something else."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        write(folder / name, content)

    return damage


def tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path)

    return damage


def cut(name: str, keep: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def a_nan(found: dict[str, Any]) -> None:
    found[FACTOR][1, 3] = np.nan


RUN, ADAPTER, WEIGHTS = "run_config.json", "adapter_config.json", "adapter_model.safetensors"
CASES: Mapping[str, tuple[Damage, str]] = {
    # records
    "record no json": (text(RUN, "{"), f"{RUN}: is not whole JSON (line 1: Expecting property name"),
    "record empty": (text(RUN, ""), f"{RUN}: is not whole JSON (line 1: Expecting value)."),
    "record a list": (text(RUN, "[]"), f"{RUN}: it is []: it should be a valid dictionary"),
    "record no text": (text(RUN, b"\xff\xfe"), f"{RUN}: is no UTF-8 text (byte 0)."),
    "record deep": (text(RUN, "[" * 10**6), f"{RUN}: nests too deeply."),
    "record long number": (text(RUN, "9" * 5000), f"{RUN}: is not whole JSON (Exceeds the limit"),
    "flags a text": (field(RUN, "flags", to="a"), f"{RUN}: flags is 'a': it should be a valid dictionary"),
    "length a text": (
        field(RUN, "flags", "max_length", to="1024"),
        f"{RUN}: flags.max_length is '1024': it should",
    ),
    "length huge": (field(RUN, "flags", "max_length", to=10**30), f"{RUN}: flags.max_length is 1000"),
    "length true": (
        field(RUN, "flags", "max_length", to=True),
        f"{RUN}: flags.max_length is True: it should",
    ),
    "tokens none": (
        field(RUN, "flags", "max_new_tokens", to=None),
        f"{RUN}: flags.max_new_tokens is None: it",
    ),
    "rank a list": (
        field(RUN, "flags", "lora_r", to=[8]),
        f"{RUN}: flags.lora_r is [8]: it should be a valid int",
    ),
    "dataset a number": (
        field(RUN, "flags", "dataset", to=5),
        f"{RUN}: flags.dataset is 5: it should be a valid str",
    ),
    "remote a text": (
        field(RUN, "flags", "from_remote", to="yes"),
        f"{RUN}: flags.from_remote is 'yes': it should",
    ),
    "name a path": (
        field(RUN, "flags", "run_name", to="../a"),
        f"{RUN}: flags.run_name is '../a': it should match",
    ),
    "day no day": (
        field(RUN, "flags", "test_from", to="soon"),
        f"{RUN}: flags.test_from is 'soon': it Invalid",
    ),
    "task unknown": (
        field(RUN, "flags", "task", to="a"),
        f"{RUN}: flags.task is 'a': it should be one of weekly",
    ),
    "precision": (
        field(RUN, "resolved", "precision", to="fp8"),
        f"{RUN}: resolved.precision is 'fp8': it should be",
    ),
    "tuner unknown": (
        field(RUN, "resolved", "tuner", to="a"),
        f"{RUN}: resolved.tuner is 'a': it should be one of",
    ),
    "base a number": (
        field(RUN, "resolved", "base_model", to=5),
        f"{RUN}: resolved.base_model is 5: it should",
    ),
    "labels a list": (
        field("dataset.json", "training_labels", to=[]),
        "dataset.json: training_labels is []: it",
    ),
    "label's count": (
        field("dataset.json", "training_labels", "up by 1-2%", to="3"),
        "dataset.json: training_labels.up by 1-2% is '3': it should be a valid integer",
    ),
    "trained until": (
        field("dataset.json", "trained_until", to="soon"),
        "dataset.json: trained_until is 'soon': it",
    ),
    "log an object": (
        text("log_history.json", "{}"),
        "log_history.json: it is {}: it should be a valid list",
    ),
    "log of numbers": (
        text("log_history.json", "[5]"),
        "log_history.json: 0 is 5: it should be a valid dict",
    ),
    # the adapter's configuration
    "adapter no json": (text(ADAPTER, "no"), f"{ADAPTER}: is not whole JSON"),
    "adapter a list": (text(ADAPTER, "[]"), f"{ADAPTER}: it is []: it should be a valid dictionary. "),
    "adapter's type": (
        field(ADAPTER, "peft_type", to="EVIL"),
        f"{ADAPTER}: peft_type is 'EVIL': it should be 'LORA'",
    ),
    "r negative": (
        field(ADAPTER, "r", to=-1),
        f"{ADAPTER}: r is -1: it should be greater than or equal to 1",
    ),
    "r huge": (field(ADAPTER, "r", to=10**9), f"{ADAPTER}: r is 1000000000, and the training was given 2"),
    "r a text": (field(ADAPTER, "r", to="2"), f"{ADAPTER}: r is '2': it should be a valid integer"),
    "alpha infinite": (
        field(ADAPTER, "lora_alpha", to=float("inf")),
        f"{ADAPTER}: lora_alpha is inf: it should be",
    ),
    "alpha NaN": (
        field(ADAPTER, "lora_alpha", to=float("nan")),
        f"{ADAPTER}: lora_alpha is nan: it should be",
    ),
    "alpha other": (
        field(ADAPTER, "lora_alpha", to=4e9),
        f"{ADAPTER}: lora_alpha is 4000000000.0, and the training",
    ),
    "targets null": (
        field(ADAPTER, "target_modules", to=None),
        f"{ADAPTER}: target_modules is None: it should be",
    ),
    "targets none": (
        field(ADAPTER, "target_modules", to=[]),
        f"{ADAPTER}: target_modules is []: it should have at",
    ),
    "targets a pattern": (
        field(ADAPTER, "target_modules", to="(a+)+$"),
        f"{ADAPTER}: target_modules is '(a+)+$': it",
    ),
    "targets fewer": (
        field(ADAPTER, "target_modules", to=["q_proj"]),
        f"{ADAPTER}: target_modules is ['q_proj'], and",
    ),
    "another tuner's": (
        field(ADAPTER, "use_dora", to=True),
        f"{ADAPTER}: use_dora is true, which is another tuner's",
    ),
    "base changed on loading": (
        field(ADAPTER, "init_lora_weights", to="pissa"),
        f"{ADAPTER}: init_lora_weights is 'pissa': it should be True",
    ),
    "a module to import": (
        field(ADAPTER, "megatron_config", to={"a": 1}),
        f"{ADAPTER}: megatron_config is set.",
    ),
    "a pattern of ranks": (
        field(ADAPTER, "rank_pattern", to={"(a+)+$": 1}),
        f"{ADAPTER}: rank_pattern is set.",
    ),
    "other modules": (
        field(ADAPTER, "modules_to_save", to=["lm_head"]),
        f"{ADAPTER}: modules_to_save is set.",
    ),
    # the adapter's weights
    "weights empty": (text(WEIGHTS, b""), f"{WEIGHTS}: is no whole safetensors file ("),
    "weights cut": (cut(WEIGHTS, 5000), f"{WEIGHTS}: is no whole safetensors file ("),
    "weights a pickle": (
        text(WEIGHTS, b"\x80\x04cos\nsystem\n."),
        f"{WEIGHTS}: is no whole safetensors file (",
    ),
    "header too large": (
        text(WEIGHTS, struct.pack("<Q", 2**40) + b"{}"),
        f"{WEIGHTS}: is no whole safetensors file (Error while deserializing header: header too large",
    ),
    "weights without tensors": (text(WEIGHTS, struct.pack("<Q", 2) + b"{}"), f"{WEIGHTS}: holds no tensors."),
    "tensors missing": (tensors(lambda found: found.pop(FACTOR)), f"{WEIGHTS}: lacks {FACTOR}."),
    "tensors more": (
        tensors(lambda found: found.update({"lm_head.weight": found[FACTOR]})),
        f"{WEIGHTS}: holds lm_head.weight, which adapter_config.json does not name.",
    ),
    "other shapes": (
        tensors(lambda found: found.update({FACTOR: np.ones((2, 64), np.float32)})),
        f"{WEIGHTS}: {FACTOR} has the shape [2, 64], not [2, 128].",
    ),
    "NaN": (tensors(a_nan), f"{WEIGHTS}: {FACTOR} holds NaN or infinite values."),
    "infinite in 16 bit": (
        tensors(lambda found: found.update({FACTOR: np.full((2, 128), np.inf, np.float16)})),
        f"{WEIGHTS}: {FACTOR} holds NaN or infinite values.",
    ),
    "no floating point": (
        tensors(lambda found: found.update({FACTOR: np.ones((2, 128), np.int64)})),
        f"{WEIGHTS}: {FACTOR} holds numbers of the type I64.",
    ),
}


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_weights(read_finished(folder))
    (problem,) = caught.value.problems
    return str(problem)


def test_a_whole_run_is_read(folder: Path) -> None:
    run = read_finished(folder)
    check_weights(run)
    assert (run.tuner.name, run.lora_rank) == ("lora", 2)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_told_with_its_field(case: str, folder: Path) -> None:
    damage, expected = CASES[case]
    damage(folder)
    found = refusal(folder)
    assert found.startswith(f"{folder}/{expected}")
    assert found.endswith(f" {WAY_OUT}")


def test_a_record_that_is_a_pipe_is_told_and_not_waited_for(folder: Path) -> None:
    (folder / RUN).unlink()
    os.mkfifo(folder / RUN)
    way_out = "Give the output folder of a training that has ended."
    assert refusal(folder) == f"--adapter: {folder} lacks {RUN}. {way_out}"


def test_weights_that_are_a_pointer_are_told(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    way_out = "Run `git lfs pull` there, or download the file itself."
    assert (
        refusal(folder) == f"{folder / WEIGHTS}: is a pointer of Git LFS in place of the weights. {way_out}"
    )


def of_older_training(folder: Path) -> None:
    """A record without the adapter's flags."""
    record = json.loads((folder / RUN).read_text())
    record["flags"] = {k: v for k, v in record["flags"].items() if k not in ("lora_alpha", "target_modules")}
    write(folder / RUN, record)


def test_targets_that_the_base_does_not_have_are_told(folder: Path) -> None:
    of_older_training(folder)
    field(ADAPTER, "target_modules", to=["q_proj", "nowhere"])(folder)
    assert refusal(folder) == (
        f"{folder / ADAPTER}: target_modules names nowhere, which the base model does not have. {WAY_OUT}"
    )


def test_weights_of_more_targets_than_are_named_are_told(folder: Path) -> None:
    of_older_training(folder)
    field(ADAPTER, "target_modules", to=["q_proj"])(folder)
    more = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight and 7 more tensors"
    assert refusal(folder) == (
        f"{folder / WEIGHTS}: holds {more}, which adapter_config.json does not name. {WAY_OUT}"
    )


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (tensors(lambda found: found.pop(FACTOR)), f"lacks {FACTOR}."),
        (
            tensors(lambda found: [found.pop(name) for name in list(found) if "q_proj" in name]),
            "lacks (any layer).",
        ),
        (tensors(a_nan), f"{FACTOR} holds NaN"),
    ],
)
def test_over_a_base_of_unknown_shape_both_factors_are_looked_for(
    damage: Damage, expected: str, folder: Path
) -> None:
    field(RUN, "resolved", "base_model", to="someone/something")(folder)
    check_weights(read_finished(folder))
    damage(folder)
    assert refusal(folder).startswith(f"{folder / WEIGHTS}: {expected}")


def test_a_shard_lies_in_the_model_s_own_folder(folder: Path) -> None:
    field(RUN, "resolved", "tuner", to="full")(folder)
    (folder / ADAPTER).unlink()
    shutil.copy(BASE / "config.json", folder)
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": "../../elsewhere.safetensors"}})
    assert refusal(folder).startswith(
        f"{folder}/model.safetensors.index.json: weight_map.a is '../../elsewhere.safetensors': it should"
    )


# --- tokenizer and template ---------------------------------------------------------------------------------

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TOKENIZER, JINJA = "tokenizer.json", "chat_template.jinja"
RENDERED = "its chat template cannot be rendered ("
RENDERINGS: Mapping[str, tuple[Damage, str]] = {
    "no tokenizer": (lambda folder: (folder / TOKENIZER).unlink(), "--adapter: {folder} cannot be loaded ("),
    "tokenizer no json": (text(TOKENIZER, "{"), "{folder}/tokenizer.json: is not whole JSON (line 1: "),
    "tokenizer a list": (
        text(TOKENIZER, "[]"),
        "{folder}/tokenizer.json: it is []: it should be a valid dict",
    ),
    "tokenizer of nothing": (text(TOKENIZER, "{}"), "--adapter: {folder} cannot be loaded ("),
    "its model": (
        field(TOKENIZER, "model", to=[]),
        "{folder}/tokenizer.json: model is []: it should be a valid dictionary.",
    ),
    "its length": (
        field("tokenizer_config.json", "model_max_length", to="x"),
        "{folder}/tokenizer_config.json: model_max_length is 'x': it should be a valid number.",
    ),
    "its length NaN": (
        field("tokenizer_config.json", "model_max_length", to=float("nan")),
        "{folder}/tokenizer_config.json: model_max_length is nan: it should be greater than 0.",
    ),
    "its side": (
        field("tokenizer_config.json", "padding_side", to="top"),
        "{folder}/tokenizer_config.json: padding_side is 'top': it should be 'left' or 'right'.",
    ),
    "its end token": (
        field("tokenizer_config.json", "eos_token", to=5),
        "{folder}/tokenizer_config.json: eos_token.str is 5: it should be a valid string;",
    ),
    "its template": (
        field("tokenizer_config.json", "chat_template", to=5),
        "{folder}/tokenizer_config.json: chat_template.str is 5: it should be a valid string;",
    ),
    "its special tokens": (
        text("special_tokens_map.json", '{"pad_token": []}'),
        "{folder}/special_tokens_map.json: pad_token.str is []: it should be a valid string;",
    ),
    "its added tokens": (
        text("added_tokens.json", '{"<a>": "9"}'),
        "{folder}/added_tokens.json: <a> is '9': it should be a valid integer.",
    ),
    "its tokens' numbers": (
        field(TOKENIZER, "added_tokens", to=[{"content": "<a>", "id": -1}]),
        "{folder}/tokenizer.json: added_tokens.0.id is -1: it should be greater than or equal to 0.",
    ),
    "tokenizer's settings": (
        text("tokenizer_config.json", "5"),
        "{folder}/tokenizer_config.json: it is 5: it should",
    ),
    "syntax": (
        text(JINJA, "{% for %}"),
        "{folder}/chat_template.jinja: " + RENDERED + "jinja2.exceptions.TemplateSy",
    ),
    "undefined": (
        text(JINJA, "{{ a.b }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "jinja2.exceptions.Undef",
    ),
    "its own exception": (
        text(JINJA, "{{ raise_exception('no thanks') }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "jinja2.exceptions.TemplateError: no thanks).",
    ),
    "python's exception": (
        text(JINJA, "{{ 1 // 0 }}"),
        "{folder}/chat_template.jinja: "
        + RENDERED
        + "ZeroDivisionError: integer division or modulo by zero).",
    ),
    "endless": (
        text(JINJA, ENDLESS),
        "{folder}/chat_template.jinja: " + RENDERED + "it takes more than 1 s).",
    ),
    "one long operation": (
        text(JINJA, "{{ 7 ** (9 ** 9) }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "it takes more than 1 s).",
    ),
    "no end of memory": (
        text(JINJA, "{{ 'a' * 10 ** 11 }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "it takes more than 2 GiB of memory).",
    ),
    "no end of calls": (
        text(JINJA, "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "RecursionError: maximum recursion depth exceeded",
    ),
    "the inside of python": (
        text(JINJA, "{{ messages.__class__.__mro__ }}"),
        "{folder}/chat_template.jinja: " + RENDERED + "jinja2.exceptions.SecurityError: access to attribute",
    ),
}


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from forecaster import processes
    from forecaster.models import templates

    monkeypatch.setattr(templates, "fault_apart", lambda work: processes.fault_apart(work, cpu_s=1))


@pytest.mark.parametrize("case", RENDERINGS)
@pytest.mark.usefixtures("short_limit")
def test_a_tokenizer_or_template_that_cannot_be_used_is_told(case: str, folder: Path) -> None:
    from forecaster.models.templates import load_saved_tokenizer

    damage, expected = RENDERINGS[case]
    damage(folder)
    with pytest.raises(ConfigurationError) as caught:
        load_saved_tokenizer(folder)
    (problem,) = caught.value.problems
    assert str(problem).startswith(expected.format(folder=folder))


def test_a_whole_tokenizer_is_loaded(folder: Path) -> None:
    from forecaster.models.templates import load_saved_tokenizer

    tokenizer = load_saved_tokenizer(folder)
    assert (tokenizer.padding_side, tokenizer.chat_template) == ("left", TEMPLATE)


def test_python_beside_a_tokenizer_does_not_run(folder: Path, tmp_path: Path) -> None:
    from forecaster.models.templates import load_saved_tokenizer

    field("tokenizer_config.json", "auto_map", to={"AutoTokenizer": ["own.Own", None]})(folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: ...\n")
    assert load_saved_tokenizer(folder).padding_side == "left"
    assert not (tmp_path / "ran").exists()
