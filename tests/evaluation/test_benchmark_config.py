"""Flags of the benchmark: what a command line means, and the message for each that means nothing."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from forecaster.errors import ConfigurationError
from forecaster.evaluation.answer_files import Columns
from forecaster.evaluation.benchmark_config import BenchmarkConfig, parse_flags


def parse(line: str) -> BenchmarkConfig:
    return parse_flags(line.split())


def problems_of(line: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(line)
    return [str(problem) for problem in caught.value.problems]


def test_an_adapter_alone_is_a_whole_benchmark_with_the_documented_defaults() -> None:
    assert parse("--adapter runs/a") == BenchmarkConfig(
        stage="all",
        runs=(),
        adapter=Path("runs/a"),
        base_model=None,
        dataset=None,
        from_remote=False,
        checkpoints=None,
        engine="auto",
        api_model=None,
        concurrency=8,
        batch_size=None,
        max_length=None,
        max_new_tokens=None,
        precision="auto",
        quantization="none",
        trust_remote_code=False,
        knowledge_cutoff=None,
        prediction_column="prediction",
        reference_column="reference",
        prompt_column="prompt",
        price_file=(),
        cost_bps=10.0,
        name=None,
        output_dir=None,
        report_to=None,
        local_rank=0,
    )


def test_flags_are_typed() -> None:
    found = parse(
        "generate --base_model m --dataset d --batch_size 2 --max_length 64 --max_new_tokens 8 "
        "--precision bf16 --quantization 4bit --knowledge_cutoff 2025-12-01 --price_file a.csv b.csv "
        "--cost_bps 2.5 --output_dir out --report_to wandb --local_rank=1 --engine vllm"
    )
    assert (found.stage, found.batch_size, found.max_length, found.max_new_tokens) == ("generate", 2, 64, 8)
    assert (found.precision, found.quantization, found.engine) == ("bf16", "4bit", "vllm")
    assert (found.knowledge_cutoff, found.cost_bps, found.local_rank) == (date(2025, 12, 1), 2.5, 1)
    assert (found.price_file, found.output_dir) == ((Path("a.csv"), Path("b.csv")), Path("out"))


def test_columns_go_together() -> None:
    found = parse("score a.csv --prediction_column p --reference_column r --prompt_column q")
    assert found.columns == Columns("p", "r", "q")


@pytest.mark.parametrize(
    ("line", "stage", "runs", "answers"),
    [
        ("--adapter a", "all", (), True),
        ("all --adapter a", "all", (), True),
        ("generate --adapter a", "generate", (), True),
        ("--adapter a generate", "generate", (), True),
        ("score a.csv b.csv", "score", ("a.csv", "b.csv"), False),
        ("report run", "report", ("run",), False),
        ("compare a b GPT=c.csv,log.json", "compare", ("a", "b", "GPT=c.csv,log.json"), False),
    ],
)
def test_the_first_word_is_the_stage_and_the_others_are_runs(
    line: str, stage: str, runs: tuple[str, ...], answers: bool
) -> None:
    found = parse(line)
    assert (found.stage, found.runs, found.answers) == (stage, runs, answers)


@pytest.mark.parametrize(
    "line",
    [
        "compare a.csv b.csv --cost_bps 5",
        "--cost_bps 5 compare a.csv b.csv",
        "compare --cost_bps 5 a.csv b.csv",
        "compare a.csv --cost_bps=5 b.csv",
        "--cost_bps 5 -- compare a.csv b.csv",
    ],
)
def test_flags_may_stand_before_between_and_behind_the_runs(line: str) -> None:
    found = parse(line)
    assert (found.stage, found.runs, found.cost_bps) == ("compare", ("a.csv", "b.csv"), 5.0)


def test_an_endpoint_needs_rows_and_no_local_model() -> None:
    assert parse("--engine api --dataset d").api_model is None
    assert parse("--engine api --api_model gpt --adapter a").adapter == Path("a")
    assert parse("--engine api --base_model m --dataset d").base_model == "m"


NEITHER = (
    "--adapter, --base_model: neither is given. Give one: the output folder of train_lora.py, or a model to "
    "answer as it is."
)
NO_ROWS = "--dataset: is missing. Name the rows to answer, such as a .jsonl file or dow30-202305-202405."
ONE_OR_MORE = "It has to be 1 or more."
BASIS_POINTS = "It is in basis points: 0 or more, below 10,000."
AS_TRAINED = "goes with --base_model only: an adapter answers as it was trained. Leave it out."


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("", [NEITHER, NO_ROWS]),
        ("--dataset d", [NEITHER]),
        ("--base_model m", [NO_ROWS]),
        ("--engine api", [NO_ROWS]),
        (
            "--base_model m --dataset d --checkpoints all",
            ["--checkpoints: goes with --adapter only. Name the run's output folder."],
        ),
        (
            "--adapter a --checkpoints all --engine api",
            ["--checkpoints: has nothing to load with --engine api. Leave one of the two out."],
        ),
        (
            "--adapter a --api_model gpt",
            ["--api_model: goes with --engine api only. Add it, or leave this out."],
        ),
        ("--adapter a --precision fp16", [f"--precision: {AS_TRAINED}"]),
        ("--adapter a --quantization 4bit", [f"--quantization: {AS_TRAINED}"]),
        *(
            (
                stage,
                [
                    f"command line: {stage} needs something to work on. Name a run's folder, or a file of "
                    "answers."
                ],
            )
            for stage in ("score", "report", "compare")
        ),
        (
            "report a b",
            ["command line: report takes one run. `compare` puts several side by side."],
        ),
        (
            "answers.csv",
            ["command line: 'answers.csv' is no stage. Stages: generate, score, compare, report."],
        ),
        (
            "generate rows.jsonl --adapter a",
            [
                "command line: generate takes no 'rows.jsonl'. Stages: generate, score, compare, report; "
                "flags look like `--name value`."
            ],
        ),
        (
            "all x --adapter a",
            [
                "command line: a benchmark takes no 'x'. Stages: generate, score, compare, report; flags "
                "look like `--name value`."
            ],
        ),
        (
            "score a.csv b.csv --name x",
            ["--name: goes with one run only. Tell runs apart as NAME=PATH."],
        ),
        (
            "score a.csv b.csv --output_dir out",
            [
                "--output_dir: is one folder for the figures of several runs. Score one at a time, or "
                "`compare` them."
            ],
        ),
        ("--adapter a --batch_size 0", [f"--batch_size: is 0. {ONE_OR_MORE}"]),
        ("--adapter a --max_length -5", [f"--max_length: is -5. {ONE_OR_MORE}"]),
        ("--adapter a --max_new_tokens 0", [f"--max_new_tokens: is 0. {ONE_OR_MORE}"]),
        ("--engine api --dataset d --concurrency 257", ["--concurrency: is 257. It has to be 256 or less."]),
        ("--engine api --dataset d --concurrency 0", [f"--concurrency: is 0. {ONE_OR_MORE}"]),
        *(
            (f"compare a --cost_bps={value}", [f"--cost_bps: is {value}. {BASIS_POINTS}"])
            for value in ("-1", "10000", "nan", "inf")
        ),
    ],
)
def test_what_means_nothing_is_told_with_a_way_out(line: str, messages: list[str]) -> None:
    assert problems_of(line) == messages


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--adapter a --batch_size two", "--batch_size: is 'two'. Give a whole number."),
        ("--adapter a --cost_bps dear", "--cost_bps: is 'dear'. Give a number."),
        ("--adapter", "command line: argument --adapter: expected one argument. See --help."),
        ("--adapter a --no_such_flag 3", "--no_such_flag: is no flag. See --help."),
        ("--adap a", "--adap: is no flag. Did you mean --adapter?"),
        ("--adapter a --batch-sise 2", "--batch-sise: is no flag. Did you mean --batch_size?"),
        (
            "--adapter a --knowledge_cutoff 2025-13-01",
            "--knowledge_cutoff: is '2025-13-01'. Give a day as YYYY-MM-DD.",
        ),
        ("--adapter a --knowledge_cutoff May", "--knowledge_cutoff: is 'May'. Give a day as YYYY-MM-DD."),
        ("--adapter a --engine tgi", "--engine: is 'tgi'. Allowed: auto, hf, vllm, api."),
        ("--adapter a --checkpoints 20", "--checkpoints: is '20'. Allowed: all."),
        (
            "--base_model m --dataset d --precision int8",
            "--precision: is 'int8'. Allowed: auto, fp32, fp16, bf16.",
        ),
        (
            "--adapter a --report_to tensorboard",
            "--report_to: is 'tensorboard'. Allowed: wandb, none.",
        ),
    ],
)
def test_a_flag_that_does_not_read_is_told_by_its_name(line: str, message: str) -> None:
    assert problems_of(line) == [message]


@pytest.mark.parametrize(
    ("line", "stage", "from_remote"),
    [
        ("--adapter a --from_remote generate", "generate", True),
        ("--adapter a --from-remote generate", "generate", True),
        ("--adapter a --from_remote false generate", "generate", False),
        ("--adapter a generate --from_remote=true", "generate", True),
        ("--from_remote --adapter a", "all", True),
    ],
)
def test_a_bare_flag_takes_no_stage_for_its_value(line: str, stage: str, from_remote: bool) -> None:
    found = parse(line)
    assert (found.stage, found.from_remote, found.runs) == (stage, from_remote, ())


def test_everything_wrong_is_told_at_once() -> None:
    line = "--base_model m --checkpoints all --batch_size 0 --cost_bps -1 --api_model gpt --concurrency few"
    assert [problem.split(": ")[0] for problem in problems_of(line)] == [
        "--concurrency",
        "--dataset",
        "--checkpoints",
        "--api_model",
        "--batch_size",
        "--cost_bps",
    ]


def test_the_flag_by_which_an_adapter_answers_also_names_it_for_scoring() -> None:
    for stage in ("score", "report"):
        config = parse_flags([stage, "--adapter", "finetuned_models/a"])
        assert (config.runs, config.adapter) == (("finetuned_models/a",), None)
