"""Flags from YAML and command line, and everything that can be wrong with them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from forecaster.errors import ConfigurationError
from forecaster.models import registry
from forecaster.settings import Settings
from forecaster.training.train_config import (
    SchedulerChoice,
    TrainConfig,
    as_flags,
    asked_of_hardware,
    asked_quantization,
    find_access_problems,
    find_disk_problems,
    find_model_problems,
    find_quantization_problems,
    find_value_problems,
    parse_flags,
    resolve_scheduler,
    warmup_steps,
)

NEEDED = ["--base_model", "qwen2.5-1.5b", "--dataset", "rows.jsonl"]
SOME_KEY = "granted"


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("base_model: qwen2.5-1.5b\ndataset: rows.jsonl\nlora_r: 4\nlearning_rate: 1e-5\n")
    return path


def model_of(name: str) -> registry.BaseModel:
    model = registry.resolve(name)
    assert isinstance(model, registry.BaseModel)
    return model


def refusals(argv: list[str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_flags(argv)
    return [str(problem) for problem in caught.value.problems]


# --- YAML and flags -----------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_published_runs() -> None:
    flags = parse_flags(NEEDED)
    assert (flags.lora_r, flags.lora_alpha, flags.lora_dropout) == (8, 16, 0.1)
    assert (flags.batch_size, flags.gradient_accumulation_steps, flags.max_length) == (1, 16, 4096)
    assert (flags.learning_rate, flags.scheduler, flags.warmup_ratio) == (5e-5, "constant", 0.03)
    assert (flags.precision, flags.quantization, flags.ds_config) == ("auto", "auto", "auto")
    assert flags.target_module_names == registry.ALL_PROJECTIONS
    assert (flags.validation_share, flags.save_total_limit) == (0.0, 2)
    assert find_value_problems(flags) == []


def test_a_yaml_file_sets_flags_and_a_flag_wins(yaml_file: Path) -> None:
    from_file = parse_flags(["--config", str(yaml_file)])
    assert (from_file.base_model, from_file.lora_r) == ("qwen2.5-1.5b", 4)
    for argv in (
        ["--config", str(yaml_file), "--lora_r", "6"],
        ["--lora_r", "6", "--config", str(yaml_file)],
        [f"--config={yaml_file}", "--lora_r=6"],
    ):
        flags = parse_flags(argv)
        assert (flags.lora_r, flags.learning_rate, flags.config) == (6, 1e-5, str(yaml_file))


def test_scientific_notation_in_yaml_is_a_number(yaml_file: Path) -> None:
    value = parse_flags(["--config", str(yaml_file)]).learning_rate
    assert isinstance(value, float)
    assert value == 0.00001


def test_booleans_null_and_negative_numbers_in_yaml_mean_what_they_say(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("from_remote: true\nresume: false\ngradient_checkpointing: true\n")
        file.write("test_dataset: null\nmax_steps: -1\nreport_to: none\nrun_name: 2024\n")
    flags = parse_flags(["--config", str(yaml_file)])
    assert (flags.from_remote, flags.resume, flags.gradient_checkpointing) == (True, False, "true")
    assert (flags.test_dataset, flags.max_steps, flags.report_to) == (None, -1, "none")
    assert flags.run_name == "2024"


def test_an_evaluation_strategy_of_no_in_yaml_is_no(yaml_file: Path) -> None:
    # YAML reads a bare `no` as false.
    with yaml_file.open("a") as file:
        file.write("evaluation_strategy: no\n")
    assert parse_flags(["--config", str(yaml_file)]).evaluation_strategy == "no"


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_file_is_no_consent_to_run_code(yaml_file: Path, value: str) -> None:
    with yaml_file.open("a") as file:
        file.write(f"trust_remote_code: {value}\n")
    with pytest.raises(ConfigurationError) as caught:
        parse_flags(["--config", str(yaml_file), "--trust_remote_code"])
    assert str(caught.value) == (
        f"--config: {yaml_file} sets trust_remote_code. It counts on the command line only: a file is no "
        "consent."
    )


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("config: other.yaml", "sets config. It counts on the command line only: a file reads no other."),
        ("config: null", "sets config. It counts on the command line only: a file reads no other."),
        (
            "local_rank: 1",
            "sets local_rank. It counts on the command line only: each rank has its own from the launcher.",
        ),
        ("help: true", "sets help. Known names: allow_told_outcome, base_model,"),
        ("gpus: 0", "sets gpus. Known names: allow_told_outcome, base_model,"),
    ],
)
def test_what_a_file_cannot_say_is_refused(yaml_file: Path, line: str, told: str) -> None:
    with yaml_file.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        parse_flags(["--config", str(yaml_file)])
    assert str(caught.value).startswith(f"--config: {yaml_file} {told}")


def test_a_file_may_ask_for_a_check_alone(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("dry_run: true\n")
    assert parse_flags(["--config", str(yaml_file)]).dry_run is True


def test_consent_to_run_code_is_given_on_the_command_line(yaml_file: Path) -> None:
    asked = ["--config", str(yaml_file)]
    assert parse_flags(asked).trust_remote_code is False
    assert parse_flags([*asked, "--trust_remote_code"]).trust_remote_code is True


def test_a_flag_can_undo_a_boolean_of_the_yaml_file(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("from_remote: true\n")
    assert parse_flags(["--config", str(yaml_file), "--from_remote", "false"]).from_remote is False


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--from_remote"], True),
        (["--from_remote", "true"], True),
        (["--from_remote", "True"], True),
        (["--from_remote", "1"], True),
        (["--from_remote=true"], True),
        (["--from_remote", "false"], False),
        (["--from_remote", "0"], False),
        (["--from_remote", "--lora_r", "4"], True),
    ],
)
def test_from_remote_is_read_bare_and_with_a_value(words: list[str], expected: bool) -> None:
    assert parse_flags([*NEEDED, *words]).from_remote is expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora_r", "four"], "--lora_r: is 'four'. Give a whole number."),
        (["--lora_r", "1.5"], "--lora_r: is '1.5'. Give a whole number."),
        (["--from_remote=perhaps"], "--from_remote: is 'perhaps'. Use true or false."),
        (["--from_remote", "perhaps"], "perhaps: belongs to no flag. Flags look like `--name value`."),
        (["--precision", "fp8"], "--precision: is 'fp8'. Allowed: auto, fp32, fp16, bf16."),
        (["--lora_r"], "command line: argument --lora_r: expected one argument. See --help."),
        (["--lora_r="], "--lora_r: is missing. Give a whole number."),
        (["--save_total_limit", "all"], "--save_total_limit: is 'all'. Give a whole number."),
        (["--save_total_limit", "1.5"], "--save_total_limit: is '1.5'. Give a whole number."),
        (["--validation_share", "10%"], "--validation_share: is '10%'. Give a number."),
    ],
)
def test_a_value_of_the_wrong_type_ends_with_status_2(words: list[str], message: str) -> None:
    assert refusals([*NEEDED, *words]) == [message]
    assert ConfigurationError.exit_status == 2


def test_all_values_that_cannot_be_read_are_told_at_once(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("keep_best: perhaps\nseed: [1, 2]\n")
    assert refusals(["--config", str(yaml_file), "--max_length", "4k", "--fit=yes"]) == [
        "--max_length: is '4k'. Give a whole number.",
        "--fit: is 'yes'. Allowed: auto, off.",
        "--seed: is '1,2'. Give a whole number.",
        "--keep_best: is 'perhaps'. Use true or false.",
    ]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--lora", "4"], ["--lora: is no flag. Did you mean --lora_r?"]),
        (["--lora_rank", "4"], ["--lora_rank: is no flag. Did you mean --lora_r?"]),
        (["--deepspeed", "a.json"], ["--deepspeed: is no flag. Did you mean --ds_config?"]),
        (["--model_name_or_path", "a"], ["--model_name_or_path: is no flag. Did you mean --base_model?"]),
        (
            ["--per-device-train-batch-size=4"],
            ["--per-device-train-batch-size=4: is no flag. Did you mean --batch_size?"],
        ),
        (["--max_seq_length", "9"], ["--max_seq_length: is no flag. Did you mean --max_length?"]),
        (["--zzz=1"], ["--zzz=1: is no flag. See --help."]),
        (
            ["--learning_rat", "1", "--epochs", "3", "--num_epoch=2"],
            [
                "--learning_rat: is no flag. Did you mean --learning_rate?",
                "--epochs: is no flag. Did you mean --num_epochs?",
                "--num_epoch=2: is no flag. Did you mean --num_epochs?",
            ],
        ),
        (["stray"], ["stray: belongs to no flag. Flags look like `--name value`."]),
    ],
)
def test_unknown_flags_are_all_named_with_the_nearest_known_one(
    words: list[str], messages: list[str]
) -> None:
    assert refusals([*NEEDED, *words]) == messages


def test_a_base_model_and_a_dataset_are_needed() -> None:
    needed = [
        "--base_model: is missing. Give an alias (llama3.1-8b, qwen2.5-1.5b, ...), hub id, or folder.",
        "--dataset: is missing. Give a comma list of folders (save_to_disk), .jsonl or .parquet files, short "
        "names (dow30-202305-202405) or hub ids; NAME*2 repeats its training rows.",
    ]
    assert refusals([]) == needed
    assert refusals(["--plan"]) == needed[:1]  # a plan needs no rows
    assert refusals(["--seed", "odd"]) == [*needed, "--seed: is 'odd'. Give a whole number."]


def _yaml_problem(content: str | bytes | None, tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        parse_flags(["--config", str(path)])
    (problem,) = caught.value.problems
    assert problem.where == "--config"
    assert problem.found.startswith(str(path))
    return str(problem)


def test_unknown_keys_of_a_yaml_file_are_all_named_with_the_known_ones(tmp_path: Path) -> None:
    problem = _yaml_problem("base_model: m\nlora_rank: 4\n1: x\nepochs: 3\n", tmp_path)
    assert " sets 1, epochs, lora_rank. Known names: allow_told_outcome, base_model, batch_size, " in problem


@pytest.mark.parametrize("content", ["", "- base_model\n", "just text\n", "5\n"])
def test_a_yaml_file_that_is_no_mapping_is_refused(content: str, tmp_path: Path) -> None:
    assert "is not a list of `name: value` lines. See configs/ for working files." in _yaml_problem(
        content, tmp_path
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("a: [1\n", "while parsing a flow sequence"),
        ("a: b: c\n", "mapping values are not allowed here"),
        (b"\xff\xfea: \x00", "can't decode"),
    ],
)
def test_a_yaml_file_that_cannot_be_read_is_refused_with_the_reason(
    content: str | bytes | None, reason: str, tmp_path: Path
) -> None:
    problem = _yaml_problem(content, tmp_path)
    assert f"{tmp_path / 'bad.yaml'} cannot be read (" in problem
    assert reason in problem
    assert "\n" not in problem


def test_a_yaml_file_is_not_looked_for_where_none_is_named() -> None:
    assert refusals([*NEEDED, "--config"]) == [
        "command line: argument --config: expected one argument. See --help."
    ]


def test_a_value_may_begin_with_a_dash_in_yaml(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("run_name: -x\nweight_decay: -1e-5\n")
    flags = parse_flags(["--config", str(yaml_file)])
    assert (flags.run_name, flags.weight_decay) == ("-x", -1e-5)


def test_flags_are_plain_values_for_a_record() -> None:
    flags = parse_flags(NEEDED)
    assert TrainConfig(**json.loads(json.dumps(as_flags(flags)))) == flags


# --- values -------------------------------------------------------------------------------------------------

BAD_VALUES = {
    "batch_size": "0",
    "gradient_accumulation_steps": "0",
    "lora_r": "-1",
    "lora_alpha": "0",
    "log_interval": "0",
    "save_total_limit": "0",
    "validation_share": "0.5",
    "max_length": "15",
    "learning_rate": "0",
    "weight_decay": "-0.1",
    "num_epochs": "0",
    "max_steps": "0",
    "lora_dropout": "1",
    "warmup_ratio": "1.0",
    "num_workers": "-1",
    "eval_steps": "2.5",
    "scheduler": "sawtooth",
    "target_modules": " , ",
}


def test_every_bad_value_is_listed_at_once() -> None:
    words = [f"--{name}={value}" for name, value in BAD_VALUES.items()]
    problems = find_value_problems(parse_flags([*NEEDED, *words, "--max_new_tokens=0"]))
    assert [problem.where for problem in problems] == [
        "--batch_size",
        "--gradient_accumulation_steps",
        "--lora_r",
        "--lora_alpha",
        "--log_interval",
        "--save_total_limit",
        "--validation_share",
        "--max_length",
        "--max_new_tokens",
        "--learning_rate",
        "--weight_decay",
        "--num_epochs",
        "--max_steps",
        "--lora_dropout",
        "--warmup_ratio",
        "--num_workers",
        "--eval_steps",
        "--scheduler",
        "--target_modules",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch_size", "0"], "--batch_size: is 0. It has to be 1 or more."),
        (["--batch_size", "1000001"], "--batch_size: is 1000001. It has to be 1,000,000 or less."),
        (["--num_workers", "1025"], "--num_workers: is 1025. It has to be 1,024 or less."),
        (["--grace_seconds", "1e9"], "--grace_seconds: is 1000000000.0. It has to be 1,000,000 or less."),
        (["--grace_seconds", "nan"], "--grace_seconds: is nan. It has to be 1 or more."),
        (["--eval_steps", "1e400"], "--eval_steps: is inf. A count of steps is a whole number."),
        (["--learning_rate", "5e5"], "--learning_rate: is 500000.0. It has to be 1,000 or less."),
        (["--save_total_limit=-1"], "--save_total_limit: is -1. It has to be 1 or more."),
        (
            ["--validation_share=-0.1"],
            "--validation_share: is -0.1. It is a share of the training weeks: 0 or more, and below 0.5.",
        ),
        (
            ["--validation_share", "nan"],
            "--validation_share: is nan. It is a share of the training weeks: 0 or more, and below 0.5.",
        ),
        (
            ["--test_from", "2026-03-06", "--test_dataset", "rows.jsonl"],
            "--test_from: is 2026-03-06, and --test_dataset names the test rows. Give one of the two.",
        ),
        (
            ["--train_until", "2026-03-06"],
            "--train_until: is 2026-03-06 without --test_from. Give both, or neither.",
        ),
        (
            ["--test_from", "2026-03-06", "--test_until", "2026-03-06"],
            "--test_until: is 2026-03-06, and --test_from is 2026-03-06. Give a later day.",
        ),
        (
            ["--test_from", "2026-03-06", "--train_until", "2026-03-13"],
            "--train_until: is 2026-03-13, and --test_from is 2026-03-06. Give that day, or an earlier one.",
        ),
        (
            ["--test_from", "2026-03-06", "--train_until", "2026-02-06", "--train_from", "2026-02-13"],
            "--train_from: is 2026-02-13, and the training weeks end before 2026-02-06. Give an earlier day.",
        ),
        (["--learning_rate", "nan"], "--learning_rate: is nan. It has to be above 0, for example 5e-5."),
        (["--learning_rate=-1e-5"], "--learning_rate: is -1e-05. It has to be above 0, for example 5e-5."),
        (
            ["--max_steps=-2"],
            "--max_steps: is -2. Use a number of steps, at most 1,000,000,000, or -1 for all epochs.",
        ),
        (
            ["--max_steps=1000000001"],
            "--max_steps: is 1000000001. Use a number of steps, at most 1,000,000,000, or -1 for all epochs.",
        ),
        (
            ["--eval_steps", "0"],
            "--eval_steps: is 0.0. Use a count of steps (50) or a fraction of all (0.1).",
        ),
        (["--eval_steps", "10.5"], "--eval_steps: is 10.5. A count of steps is a whole number."),
        (
            ["--max_length", "512", "--max_new_tokens", "512"],
            "--max_new_tokens: is 512. It has to be below --max_length.",
        ),
        (
            ["--gpu", "t5", "--dry_run"],
            "--gpu: is 't5'. Use one of t4, v100, l4, a10, rtx3090, rtx4090, a100-40, a100-80, h100, "
            "h200, or a size such as 24GiB; 8xa100-80 is eight of them.",
        ),
        (
            ["--gpu", "t4"],
            "--gpu: is 't4'. It goes with --plan and --dry_run only; a run takes the machine's GPUs.",
        ),
        (
            ["--scheduler", "sawtooth"],
            "--scheduler: is 'sawtooth'. Use one of linear, cosine, cosine_with_restarts, polynomial, "
            "constant, constant_with_warmup, inverse_sqrt.",
        ),
    ],
)
def test_a_bad_value_is_shown_with_what_is_allowed(words: list[str], message: str) -> None:
    assert [str(problem) for problem in find_value_problems(parse_flags([*NEEDED, *words]))] == [message]


@pytest.mark.parametrize(
    "words",
    [
        ["--eval_steps", "1"],
        ["--eval_steps", "50"],
        ["--eval_steps", "0.001"],
        ["--max_steps", "1"],
        ["--lora_dropout", "0"],
        ["--warmup_ratio", "0"],
        ["--weight_decay", "0"],
        ["--num_epochs", "0.5"],
        ["--save_total_limit", "1"],
        ["--validation_share", "0"],
        ["--validation_share", "0.49"],
        ["--gpu", "t4", "--dry_run"],
        ["--target_modules", "q_proj, v_proj,"],
    ],
)
def test_a_value_at_the_edge_of_its_range_is_fine(words: list[str]) -> None:
    assert find_value_problems(parse_flags([*NEEDED, *words])) == []


def test_target_modules_are_a_comma_list() -> None:
    assert parse_flags([*NEEDED, "--target_modules", "q_proj, v_proj,"]).target_module_names == (
        "q_proj",
        "v_proj",
    )


# --- scheduler ----------------------------------------------------------------------------------------------


def test_constant_with_a_warm_up_is_named_as_the_trainer_names_it_with_a_note() -> None:
    assert resolve_scheduler(parse_flags(NEEDED)) == SchedulerChoice(
        "constant_with_warmup", "Scheduler: constant after a linear warm-up over 0.03 of the steps."
    )


@pytest.mark.parametrize(
    ("scheduler", "warmup_ratio"), [("constant", "0"), ("cosine", "0.03"), ("constant_with_warmup", "0.03")]
)
def test_any_other_scheduler_is_taken_as_asked(scheduler: str, warmup_ratio: str) -> None:
    flags = parse_flags([*NEEDED, "--scheduler", scheduler, "--warmup_ratio", warmup_ratio])
    assert resolve_scheduler(flags) == SchedulerChoice(scheduler)


# --- tuner --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--tuner", "qlora", "--quantization", "none"],
            "--tuner: is qlora, which is LoRA over 4-bit base weights, but --quantization is none. "
            "Use --tuner lora, or --quantization 4bit.",
        ),
        (
            ["--tuner", "full", "--quantization", "4bit"],
            "--tuner: is full, but weights in 4 bit cannot be trained. "
            "Use --tuner qlora, or leave --quantization out.",
        ),
    ],
)
def test_a_tuner_that_contradicts_the_weights_is_refused(words: list[str], message: str) -> None:
    assert [str(problem) for problem in find_value_problems(parse_flags([*NEEDED, *words]))] == [message]


@pytest.mark.parametrize(
    ("words", "quantization"),
    [
        ([], "auto"),
        (["--quantization", "4bit"], "4bit"),
        (["--tuner", "qlora"], "4bit"),
        (["--tuner", "qlora", "--quantization", "4bit"], "4bit"),
        (["--tuner", "full"], "none"),
        (["--tuner", "dora"], "auto"),
        (["--tuner", "dora", "--quantization", "4bit"], "4bit"),
        (["--tuner", "rslora", "--quantization", "none"], "none"),
    ],
)
def test_the_tuner_decides_what_quantization_leaves_open(words: list[str], quantization: str) -> None:
    flags = parse_flags([*NEEDED, *words])
    assert find_value_problems(flags) == []
    assert asked_quantization(flags) == quantization


@pytest.mark.parametrize(
    ("given", "is_fixed"),
    [((), False), (("batch_size",), True), (("gradient_accumulation_steps",), True), (("seed",), False)],
)
def test_a_micro_batch_or_accumulation_on_the_command_line_fixes_both(
    given: tuple[str, ...], is_fixed: bool
) -> None:
    assert asked_of_hardware(parse_flags(NEEDED), given).division_is_fixed is is_fixed


def test_values_out_of_range_are_planned_as_the_nearest_allowed() -> None:
    words = ["--batch_size=0", "--gradient_accumulation_steps=-3", "--lora_r=0", "--max_length=-1"]
    asked = asked_of_hardware(parse_flags([*NEEDED, *words]), ())
    assert (asked.batch_size, asked.gradient_accumulation_steps) == (1, 1)
    assert (asked.tuner_settings.rank, asked.length) == (1, 16)


def test_a_plan_does_not_ask_for_room_for_the_benchmarks_answers() -> None:
    words = [*NEEDED, "--max_length", "512"]
    assert [problem.where for problem in find_value_problems(parse_flags(words))] == ["--max_new_tokens"]
    assert find_value_problems(parse_flags([*words, "--plan"])) == []


# --- model, quantisation, disk ------------------------------------------------------------------------------


def test_a_gated_model_needs_a_token() -> None:
    model = model_of("llama3.1-8b")
    (problem,) = find_access_problems(model, Settings())
    assert problem.where == "--base_model"
    assert problem.found == "meta-llama/Llama-3.1-8B-Instruct is gated, and there is no HF_TOKEN."
    assert "put HF_TOKEN into .env" in problem.way_out
    assert find_access_problems(model, Settings(hf_token=SOME_KEY)) == []


def test_a_model_that_is_not_gated_needs_none() -> None:
    assert find_access_problems(model_of("qwen2.5-1.5b"), Settings()) == []


def test_a_max_length_above_the_context_is_refused_with_the_largest_allowed() -> None:
    flags = parse_flags([*NEEDED, "--base_model", "llama2-7b", "--max_length", "4097"])
    assert [str(problem) for problem in find_model_problems(flags, model_of("llama2-7b"))] == [
        "--max_length: is 4097, but llama2-7b reads 4096 tokens. Use --max_length 4096 or less."
    ]
    flags = parse_flags([*NEEDED, "--base_model", "llama2-7b", "--max_length", "4096"])
    assert find_model_problems(flags, model_of("llama2-7b")) == []


def test_layers_that_the_model_does_not_have_are_named() -> None:
    flags = parse_flags([*NEEDED, "--target_modules", "q_proj,c_attn,W_pack"])
    (problem,) = find_model_problems(flags, model_of("qwen2.5-1.5b"))
    assert str(problem).startswith(
        "--target_modules: c_attn, W_pack can not be adapted in this model. It has q_proj"
    )


def test_of_an_unknown_model_nothing_is_assumed() -> None:
    flags = parse_flags([*NEEDED, "--target_modules", "c_attn", "--max_length", "999999"])
    assert find_model_problems(flags, model_of("owner/model")) == []


def test_all_problems_of_a_model_are_found_at_once() -> None:
    flags = parse_flags([*NEEDED, "--target_modules", "c_attn", "--max_length", "999999"])
    problems = find_model_problems(flags, model_of("llama2-7b"))
    assert [problem.where for problem in problems] == ["--target_modules", "--max_length"]


def test_four_bit_weights_need_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = find_quantization_problems("4bit")
    assert "pip install -r requirements-gpu.txt" in problem.way_out
    assert find_quantization_problems("none") == []


@pytest.mark.parametrize(
    ("free_bytes", "where"),
    [
        (10**12, []),
        (3_087_428_607, ["HF_HOME"]),
        # 50 MB, and 16 bytes for each of 9,232,384 parameters, four times: checkpoints, one more, the adapter
        (50_000_000 + 590_872_576 - 1, ["--output_dir", "HF_HOME"]),
    ],
)
def test_disk_is_counted_for_checkpoints_and_for_the_download_of_a_hub_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, where: list[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**13, 0, free_bytes))
    flags, folder = parse_flags(NEEDED), tmp_path / "not" / "yet" / "there"
    problems = find_disk_problems(flags, model_of("qwen2.5-1.5b"), folder)
    assert [problem.where for problem in problems] == where
    local = registry.BaseModel("base", True, model_of("qwen2.5-1.5b").shape)
    assert [p.where for p in find_disk_problems(flags, local, folder)] == [w for w in where if w != "HF_HOME"]
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("words", "checkpoints"),
    [
        (["--save_total_limit", "1"], 1),
        (["--save_total_limit", "5"], 5),
        (["--save_total_limit", "1000"], 10),  # every tenth of the steps: there will be no more
        (["--save_total_limit", "1000", "--eval_steps", "0.3"], 4),
        (["--save_total_limit", "1000", "--eval_steps", "50"], 1000),
    ],
)
def test_disk_is_counted_for_as_many_checkpoints_as_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], checkpoints: int
) -> None:
    # 50 MB, and 16 bytes for each of 9,232,384 parameters of a checkpoint, of one more, and of the adapter
    needed = 50_000_000 + 147_718_144 * (checkpoints + 2)
    local = registry.BaseModel("base", True, model_of("qwen2.5-1.5b").shape)
    found = []
    for free_bytes in (needed, needed - 1):
        monkeypatch.setattr(
            "shutil.disk_usage", lambda _, free=free_bytes: shutil._ntuple_diskusage(1, 0, free)
        )
        found.append(len(find_disk_problems(parse_flags([*NEEDED, *words]), local, tmp_path)))
    assert found == [0, 1]


@pytest.mark.parametrize(
    ("tuner", "needed"),
    [
        # 50 MB; 16 bytes a parameter of two checkpoints that stay, of one more, and of the adapter
        ("rslora", 50_000_000 + 4 * 16 * 9_232_384),
        ("dora", 50_000_000 + 4 * 16 * (9_232_384 + 28 * (1536 + 256 + 256 + 1536 + 2 * 8960 + 1536))),
        # 48 GB for the checkpoints of each 10^9 parameters, and 4 for the model
        ("full", 50_000_000 + 1_543_714_304 * (3 * 16 + 4)),
    ],
)
def test_disk_is_counted_for_what_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuner: str, needed: int
) -> None:
    local = registry.BaseModel("base", True, model_of("qwen2.5-1.5b").shape)
    found = []
    for free_bytes in (needed, needed - 1):
        monkeypatch.setattr(
            "shutil.disk_usage", lambda _, free=free_bytes: shutil._ntuple_diskusage(1, 0, free)
        )
        found.append(len(find_disk_problems(parse_flags([*NEEDED, "--tuner", tuner]), local, tmp_path)))
    assert found == [0, 1]


def test_the_message_says_what_is_free_and_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**13, 0, 10_000_000))
    local = registry.BaseModel("base", True, model_of("qwen2.5-1.5b").shape)
    (problem,) = find_disk_problems(parse_flags(NEEDED), local, tmp_path)
    assert problem.found == f"{tmp_path} has 0.01 GB free, and the run may need 0.64 GB."


def test_dataset_on_the_command_line_takes_the_test_rows_of_the_file_along(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("test_dataset: other.jsonl\n")
    assert parse_flags(["--config", str(yaml_file)]).test_dataset == "other.jsonl"
    assert parse_flags(["--config", str(yaml_file), "--dataset", "mine.jsonl"]).test_dataset is None
    both = ["--dataset", "mine.jsonl", "--test_dataset", "my_test.jsonl"]
    assert parse_flags(["--config", str(yaml_file), *both]).test_dataset == "my_test.jsonl"


def test_a_list_in_yaml_is_the_comma_list_of_the_command_line(yaml_file: Path) -> None:
    with yaml_file.open("a") as file:
        file.write("target_modules: [q_proj, v_proj]\n")
    assert parse_flags(["--config", str(yaml_file)]).target_module_names == ("q_proj", "v_proj")


def test_of_two_configuration_files_the_last_is_read_and_recorded(yaml_file: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text("base_model: m\ndataset: d\nseed: 7\n")
    flags = parse_flags(["--config", str(yaml_file), "--config", str(second)])
    assert (flags.seed, flags.config) == (7, str(second))


@pytest.mark.parametrize("flag", ["learning_rate", "weight_decay", "num_epochs"])
def test_infinite_values_are_refused(flag: str) -> None:
    flags = parse_flags(["--base_model", "m", "--dataset", "d", f"--{flag}", "inf"])
    assert [problem.where for problem in find_value_problems(flags)] == [f"--{flag}"]


@pytest.mark.parametrize(("ratio", "steps", "warm"), [(0.03, 1, 0), (0.03, 2, 1), (0.03, 100, 3), (0, 1, 0)])
def test_the_only_step_of_a_run_is_no_warm_up(ratio: float, steps: int, warm: int) -> None:
    assert warmup_steps(ratio, steps) == warm
