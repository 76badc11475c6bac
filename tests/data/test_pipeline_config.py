"""The flags of data_pipeline.py: what they mean, and everything that can be wrong with them at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from forecaster.data.pipeline_config import PipelineConfig, parse_flags
from forecaster.errors import ConfigurationError
from forecaster.settings import Settings

NOW = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
KEYS = Settings(finnhub_api_key="f", openai_api_key="o", openai_model="teacher-1")
RANGE = ("--start_date", "2025-12-01", "--end_date", "2026-05-01")
SHARE = "It is a share of weeks, above 0 and below 1."
DAY = "Give a day as YYYY-MM-DD."
AMOUNT = "It has to be 0 or more."
PACE = "Finnhub allows 60 on the free plan, and at most 30 a second (1800) on any."
NO_FINNHUB_KEY = (
    "FINNHUB_API_KEY: is missing. Put FINNHUB_API_KEY=... into .env, or set it in the environment. Or bring "
    "your own news with --news_file."
)
NO_OPENAI_KEY = (
    "OPENAI_API_KEY: is missing. Put OPENAI_API_KEY=... into .env, or set it in the environment. Any word "
    "will do for a server without keys; --teacher template needs none."
)
NO_STAGE = "is no stage. Stages: plan, fetch, label, build, audit, describe, convert."
NO_MODEL = (
    "--teacher_model: is missing. Name one. Put OPENAI_MODEL=... into .env, or set it in the environment."
)


def parsed(*argv: str, settings: Settings = KEYS, now: datetime = NOW) -> PipelineConfig:
    return parse_flags(argv, settings, now)


def problems(*argv: str, settings: Settings = KEYS, now: datetime = NOW) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_flags(argv, settings, now)
    return [str(problem) for problem in caught.value.problems]


def test_flags_become_typed_values_and_the_rest_is_as_in_fingpt() -> None:
    assert parsed(*RANGE) == PipelineConfig(
        stage="all",
        dataset=None,
        index_name="dow",
        start_date=date(2025, 12, 1),
        end_date=date(2026, 5, 1),
        min_past_weeks=1,
        max_past_weeks=4,
        train_ratio=0.6,
        current_members=False,
        data_folder=Path("data"),
        news_file=(),
        price_file=(),
        with_indicators=False,
        with_macro=False,
        calls_per_minute=60,
        teacher="openai",
        teacher_blind=False,
        teacher_model="teacher-1",
        input_usd_per_million_tokens=None,
        output_usd_per_million_tokens=None,
        max_cost_usd=None,
        concurrency=8,
        model=None,
        from_remote=False,
        push_to_hub=None,
        yes=False,
    )


def test_flags_may_stand_before_and_behind_the_stage() -> None:
    config = parsed("--yes", "--news_file", "a.csv", "b.jsonl", "--teacher_model", "t-2", "fetch", *RANGE)
    assert (config.stage, config.yes, config.teacher_model) == ("fetch", True, "t-2")
    assert config.news_file == (Path("a.csv"), Path("b.jsonl"))
    assert parsed("fetch", *RANGE, "--yes").stage == "fetch"
    apart = parsed("describe", "--model", "sample/base", "rows.jsonl")
    assert (apart.stage, apart.model, apart.dataset) == ("describe", "sample/base", "rows.jsonl")


def test_a_repeated_flag_for_files_keeps_all_of_them() -> None:
    both = ("--news_file", "a.csv", "--price_file", "p.csv", "--news_file", "b.csv", "--price_file", "q.csv")
    config = parsed(*RANGE, *both)
    assert config.news_file == (Path("a.csv"), Path("b.csv"))
    assert config.price_file == (Path("p.csv"), Path("q.csv"))


@pytest.mark.parametrize("flag", ["--news_file", "--price_file"])
def test_a_stage_that_was_taken_for_a_file_is_told_alone(flag: str) -> None:
    assert problems(*RANGE, flag, "a.csv", "plan", settings=Settings()) == [
        f"{flag}: takes the stage 'plan' for a file. Put the stage first."
    ]


def test_a_file_may_be_called_like_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan").touch()
    config = parsed(*RANGE, "--news_file", "plan")
    assert (config.stage, config.news_file) == ("all", (Path("plan"),))


@pytest.mark.parametrize(
    ("stage", "fetches", "asks_teacher", "needs_answers"),
    [
        ("all", True, True, True),
        ("plan", False, False, False),
        ("fetch", True, False, False),
        ("label", False, True, True),
        ("build", False, False, True),
        ("audit", False, False, False),
    ],
)
def test_a_stage_says_whom_it_asks(
    stage: str, fetches: bool, asks_teacher: bool, needs_answers: bool
) -> None:
    config = parsed(stage, *RANGE)
    assert (config.fetches, config.asks_teacher, config.needs_answers) == (
        fetches,
        asks_teacher,
        needs_answers,
    )
    assert not parsed(stage, *RANGE, "--teacher", "template").needs_answers


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--start_date", "2025-13-01"], f"--start_date: is '2025-13-01'. {DAY}"),
        (["--start_date", "01.12.2025"], f"--start_date: is '01.12.2025'. {DAY}"),
        (["--start_date", "2025-02-29"], f"--start_date: is '2025-02-29'. {DAY}"),
        (["--end_date", ""], f"--end_date: is missing. {DAY}"),
        (["--end_date", "2025-11-30"], "--end_date: is 2025-11-30. It has to be after 2025-12-01."),
        (["--end_date", "2025-12-01"], "--end_date: is 2025-12-01. It has to be after 2025-12-01."),
        (["--start_date", "2005-12-31"], "--start_date: is 2005-12-31. It has to be 2006-01-01 or later."),
        (
            ["--start_date", "2026-11-21", "--end_date", "2027-01-01"],
            "--start_date: is 2026-11-21. It has to be before today, 2026-11-21.",
        ),
        (["--min_past_weeks", "0"], "--min_past_weeks: is 0. It has to be 1 or more."),
        (["--min_past_weeks", "-3"], "--min_past_weeks: is -3. It has to be 1 or more."),
        (
            ["--min_past_weeks", "5"],
            "--max_past_weeks: is 4. It has to be --min_past_weeks (5) or more.",
        ),
        (["--train_ratio", "nan"], f"--train_ratio: is nan. {SHARE}"),
        (["--max_past_weeks", "521"], "--max_past_weeks: is 521. It has to be 520 or less."),
        (["--train_ratio", "inf"], f"--train_ratio: is inf. {SHARE}"),
        (["--train_ratio", "0"], f"--train_ratio: is 0.0. {SHARE}"),
        (["--train_ratio", "1"], f"--train_ratio: is 1.0. {SHARE}"),
        (["--train_ratio=-0.5"], f"--train_ratio: is -0.5. {SHARE}"),
        (["--train_ratio", "60"], f"--train_ratio: is 60.0. {SHARE}"),
        (["--calls_per_minute", "0"], f"--calls_per_minute: is 0. {PACE}"),
        (["--calls_per_minute", "1801"], f"--calls_per_minute: is 1801. {PACE}"),
        (["--concurrency", "0"], "--concurrency: is 0. It has to be 1 to 256."),
        (["--concurrency", "257"], "--concurrency: is 257. It has to be 1 to 256."),
        (["--teacher", "human"], "--teacher: is 'human'. Use openai or template."),
        (
            ["--teacher", "template", "--teacher_blind"],
            "--teacher_blind: does not go with --teacher template. The template only restates what is known; "
            "it has to be told the outcome.",
        ),
        (["--output_usd_per_million_tokens", "inf"], f"--output_usd_per_million_tokens: is inf. {AMOUNT}"),
        (["--input_usd_per_million_tokens=-1"], f"--input_usd_per_million_tokens: is -1.0. {AMOUNT}"),
        (
            ["--max_cost_usd", "5", "--input_usd_per_million_tokens", "1"],
            "--max_cost_usd: cannot be kept without prices. Give --input_usd_per_million_tokens and "
            "--output_usd_per_million_tokens too.",
        ),
        (
            ["--index_name", "dax"],
            "--index_name: is 'dax'. Use dow, nasdaq, euro, crypto, tickers such as AAPL,MSFT, or a file of "
            "tickers.",
        ),
        (
            ["refetch"],
            "command line: 'refetch' is no stage. Stages: plan, fetch, label, build, audit, describe, "
            "convert.",
        ),
        (
            ["--push_to_hub", "me/rows"],
            "--push_to_hub: needs HF_TOKEN. Put HF_TOKEN=... into .env, or set it in the environment.",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(argv: list[str], problem: str) -> None:
    assert problems(*RANGE, *argv) == [problem]


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--train_ration", "0.5"], "--train_ration: is no flag. Did you mean --train_ratio?"),
        (["--train", "0.5"], "--train: is no flag. Did you mean --train_ratio?"),
        (["--train_ratio", "half"], "--train_ratio: is 'half'. Give a number."),
        (["--min_past_weeks", "1.5"], "--min_past_weeks: is '1.5'. Give a whole number."),
        (
            ["--news_file"],
            "command line: argument --news_file: expected at least one argument. See --help.",
        ),
        (["--max_cost_usd"], "command line: argument --max_cost_usd: expected one argument. See --help."),
    ],
)
def test_what_cannot_be_read_at_all_is_told_by_its_name(argv: list[str], problem: str) -> None:
    assert problems(*RANGE, *argv) == [problem]


@pytest.mark.parametrize("name", ["rows", "me/my rows", "me/a/b", "/rows", ""])
def test_the_name_of_the_dataset_on_the_hub_has_an_owner(name: str) -> None:
    settings = Settings(hf_token="h", finnhub_api_key="f", openai_api_key="o", openai_model="m")
    problem = f"--push_to_hub: is {name!r}. It names a dataset on the hub: OWNER/NAME."
    assert problems(*RANGE, "--push_to_hub", name, settings=settings) == [problem]
    assert parsed(*RANGE, "--push_to_hub", "me/rows-1.0", settings=settings).push_to_hub == "me/rows-1.0"


def test_edges_that_are_allowed() -> None:
    config = parsed(
        *("--start_date", "2006-01-01", "--end_date", "9999-12-31"),
        *("--min_past_weeks", "4", "--calls_per_minute", "1800", "--concurrency", "256"),
        *("--max_cost_usd", "0", "--input_usd_per_million_tokens", "0"),
        *("--output_usd_per_million_tokens", "0.6"),
    )
    assert (config.start_date, config.end_date) == (date(2006, 1, 1), date(9999, 12, 31))
    assert (config.min_past_weeks, config.max_past_weeks) == (4, 4)
    assert (config.max_cost_usd, config.output_usd_per_million_tokens) == (0.0, 0.6)


def test_a_limit_without_prices_does_not_matter_to_the_template() -> None:
    assert parsed(*RANGE, "--teacher", "template", "--max_cost_usd", "5").max_cost_usd == 5.0


def test_everything_that_is_wrong_is_told_together() -> None:
    argv = (
        *("--start_date", "2027-01-01", "--end_date", "soon", "--min_past_weeks", "0", "--max_past_weeks=-1"),
        *("--train_ratio", "nan", "--calls_per_minute", "0", "--teacher", "human", "--concurrency", "0"),
        *("--max_cost_usd", "nan", "--index_name", "dax"),
    )
    nobody = Settings()
    assert problems("--push_to_hub", "rows", *argv, settings=nobody) == [
        f"--end_date: is 'soon'. {DAY}",
        "--start_date: is 2027-01-01. It has to be before today, 2026-11-21.",
        "--min_past_weeks: is 0. It has to be 1 or more.",
        "--max_past_weeks: is -1. It has to be --min_past_weeks (0) or more.",
        f"--train_ratio: is nan. {SHARE}",
        f"--calls_per_minute: is 0. {PACE}",
        "--teacher: is 'human'. Use openai or template.",
        "--concurrency: is 0. It has to be 1 to 256.",
        f"--max_cost_usd: is nan. {AMOUNT}",
        "--push_to_hub: is 'rows'. It names a dataset on the hub: OWNER/NAME.",
        "--index_name: is 'dax'. Use dow, nasdaq, euro, crypto, tickers such as AAPL,MSFT, or a file of "
        "tickers.",
        NO_FINNHUB_KEY,
        "--push_to_hub: needs HF_TOKEN. Put HF_TOKEN=... into .env, or set it in the environment.",
    ]


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "missing"),
    [
        ([], [NO_FINNHUB_KEY, NO_OPENAI_KEY, NO_MODEL]),
        (["fetch"], [NO_FINNHUB_KEY]),
        (["--teacher", "template"], [NO_FINNHUB_KEY]),
        (["--news_file", "n.csv"], [NO_OPENAI_KEY, NO_MODEL]),
        (["label"], [NO_OPENAI_KEY, NO_MODEL]),
        (["label", "--teacher_model", "m"], [NO_OPENAI_KEY]),
        (["build"], [NO_MODEL]),
    ],
)
def test_a_stage_needs_the_keys_of_those_it_asks(argv: list[str], missing: list[str]) -> None:
    assert problems(*argv, *RANGE, settings=Settings()) == missing


@pytest.mark.parametrize(
    "argv",
    [
        ["plan"],
        ["audit"],
        ["build", "--teacher", "template"],
        ["label", "--teacher", "template"],
        ["--teacher", "template", "--news_file", "n.csv"],
    ],
)
def test_other_stages_need_no_key(argv: list[str]) -> None:
    assert parsed(*argv, *RANGE, settings=Settings()).teacher_model is None


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "http://", "http://127.0.0.1:port/v1", "http://[::1"])
def test_the_address_of_the_teacher_is_a_web_address(url: str) -> None:
    settings = replace(KEYS, openai_base_url=url)
    assert problems(*RANGE, settings=settings) == [
        "OPENAI_BASE_URL: is no web address. It begins with http:// or https:// and a host, as in "
        "http://127.0.0.1:8000/v1."
    ]
    assert parsed("fetch", *RANGE, settings=settings).stage == "fetch"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://api.example.com/v1", "http://[::1]:80"])
def test_a_web_address_is_fine(url: str) -> None:
    assert parsed(*RANGE, settings=replace(KEYS, openai_base_url=url)).asks_teacher


# --- any dataset --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["describe"], ["command line: describe needs a dataset. Name it after the stage."]),
        (
            ["convert"],
            [
                "command line: convert needs a dataset. Name it after the stage.",
                "--model: is missing. Name the model whose chat template the copy is for.",
            ],
        ),
        (
            ["convert", "rows.jsonl"],
            ["--model: is missing. Name the model whose chat template the copy is for."],
        ),
        (
            ["plan", "rows.jsonl"],
            [
                "command line: 'plan' takes no dataset, and 'rows.jsonl' is given. Stages: plan, fetch, "
                "label, build, audit, describe, convert; audit, describe and convert take a dataset."
            ],
        ),
        (
            ["descibe", "rows.jsonl"],
            [f"command line: 'descibe' {NO_STAGE}"],
        ),
    ],
)
def test_stages_for_any_dataset_say_what_they_lack(argv: list[str], expected: list[str]) -> None:
    assert problems(*argv, settings=Settings()) == expected


@pytest.mark.parametrize("argv", [["describe"], ["audit"], ["convert", "--model", "llama3.1-8b"]])
def test_stages_for_any_dataset_need_neither_dates_nor_keys(argv: list[str]) -> None:
    assert parsed(*argv[:1], "rows.jsonl", *argv[1:], settings=Settings()).dataset == "rows.jsonl"
