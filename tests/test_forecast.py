"""forecast.py from flags to record: the real vendor clients against loopback servers, a real adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import datasets
import pytest
from loopback_market import FINNHUB_KEY, Market, Planted, World, redirected
from processes import ROOT, run_entry
from small_runs import finished_run, write_dataset

import data_pipeline
import forecast
from forecaster.data import outlook
from forecaster.data.folder import locked, open_ledger
from forecaster.data.outlook import Shown
from forecaster.files import sha256_of
from forecaster.jobs.forecast import recipe_of
from forecaster.jobs.forecast_config import parse_flags
from forecaster.models.finished import FinishedRun
from forecaster.vendors import yahoo
from forecaster.vendors.registry import VENDORS, YAHOO
from prompts import read_prompt, render_published, split_published

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RECIPE = {"min_past_weeks": 1, "max_past_weeks": 2, "with_indicators": True, "with_macro": True}
SHOWN = Shown(max_past_weeks=2, with_indicators=True, with_macro=True)
AGAIN = [
    Planted(datetime(2026, month, day, 12, tzinfo=UTC), "The same headline comes again")
    for month, day in ((1, 7), (1, 14), (2, 18), (2, 25), (3, 18))
]
WORLD = World(
    ("AAPL", "META"),
    first_day=date(2026, 1, 1),
    last_day=date(2026, 4, 17),
    articles_per_week=15,
    rates={"META": 2},
    planted={"META": AGAIN},
    prices_from=date(2024, 9, 2),
)
RANGE = ("--index_name", "AAPL,META", "--end_date", "2026-04-10", "--max_past_weeks", "2")
BUILD = (*RANGE, "--train_ratio", "0.5", "--with_macro", "--with_indicators", "--teacher", "template")

Forecast = Callable[..., int]


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market(WORLD) as found:
        yield found


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the embedded base model, with an adapter that changes it and is not trained."""
    import torch

    from forecaster.models import loading, registry, templates
    from forecaster.models.tuners.base import TunerSettings
    from forecaster.models.tuners.lora import LORA

    base = registry.resolve(str(ROOT / "sample" / "base"))
    assert isinstance(base, registry.BaseModel)
    torch.manual_seed(7)
    model = LORA.attach(
        loading.load_base(base.location, "fp32"),
        TunerSettings(rank=2, alpha=4, dropout=0.0, targets=("q_proj",)),
    )
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.02)
    folder = tmp_path_factory.mktemp("runs") / "run"
    model.save_pretrained(folder)
    templates.load_tokenizer(base, trust_remote_code=False)[0].save_pretrained(folder)
    flags = {"max_length": 4096, "max_new_tokens": 12, "trust_remote_code": False}
    flags |= {"dataset": "rows.jsonl", "lora_r": 2, "run_name": "small"}
    resolved = {"base_model": base.location, "precision": "fp32", "quantization": "none"}
    write(folder / "run_config.json", {"flags": flags, "resolved": resolved})
    write(folder / "dataset.json", {"fingerprint_sha256": "0", "training_labels": {}, "recipe": RECIPE})
    write(folder / "log_history.json", [])
    return folder


def hasten_yahoo(patch: pytest.MonkeyPatch) -> None:
    """Its pace is a politeness that no loopback server needs."""
    patch.setitem(VENDORS, "yahoo", replace(YAHOO, calls_per_minute=1800))
    patch.setattr(yahoo, "_SECOND_OPINION_AFTER_S", 0)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def adapter_without_recipe(adapter: Path) -> Path:
    """The same adapter, trained on data of which no recipe is known: one price call a symbol, not six."""
    folder = adapter.with_name("run_without_recipe")
    shutil.copytree(adapter, folder)
    write(folder / "dataset.json", {"fingerprint_sha256": "0", "training_labels": {}})
    return folder


@pytest.fixture(scope="module")
def datasets_of_two_ranges(market: Market, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data folders of a dataset and of one that starts three weeks later, each with a ledger of its own."""
    folders = []
    with redirected(market), pytest.MonkeyPatch.context() as patch:
        hasten_yahoo(patch)
        for start in ("2026-01-05", "2026-01-26"):
            folder = tmp_path_factory.mktemp("data")
            flags = ("--start_date", start, "--calls_per_minute", "1800", "--data_folder", str(folder))
            assert data_pipeline.main([*BUILD, *flags]) == 0
            folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture
def run_forecast(
    market: Market, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Forecast]:
    """Runs forecast.py in a folder of its own; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    hasten_yahoo(monkeypatch)
    with redirected(market):
        yield lambda *flags, now=NOW, adapter=adapter: forecast.main(
            ["--adapter", str(adapter), "--calls_per_minute", "1800", *flags], now
        )


def rows_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    (dataset,) = folder.glob("fingpt-forecaster-*")
    parts = datasets.load_from_disk(str(dataset))
    return {(row["symbol"], row["target_start"]): row for part in parts.values() for row in part}


def weeks_shown(row: dict[str, Any]) -> int:
    return len(read_prompt(split_published(row["prompt"]).user).weeks)


# --- the same prompt, wherever it comes from ----------------------------------------------------------------


def test_a_row_is_the_same_to_the_byte_in_datasets_of_different_ranges(
    datasets_of_two_ranges: tuple[Path, Path],
) -> None:
    long, short = map(rows_of, datasets_of_two_ranges)
    # The first row of a range shows the one week that the range has before it.
    shared = [key for key in long if key in short and weeks_shown(short[key]) == 2]
    assert len(shared) == 18
    assert any(AGAIN[0].headline in long[key]["prompt"] for key in shared)
    for key in shared:
        assert short[key] == long[key]
    assert {symbol for symbol, _ in shared} == {"AAPL", "META"}


def test_a_headline_that_an_earlier_prompt_showed_stays(datasets_of_two_ranges: tuple[Path, Path]) -> None:
    rows = rows_of(datasets_of_two_ranges[0])
    shown = {start for (symbol, start), row in rows.items() if AGAIN[0].headline in row["prompt"]}
    assert {"2026-01-16", "2026-03-20"} <= shown
    assert all(row["prompt"].count(AGAIN[0].headline) <= 1 for row in rows.values())


def test_the_prompt_of_every_past_week_is_the_datasets_row(datasets_of_two_ranges: tuple[Path, Path]) -> None:
    ledger = open_ledger(datasets_of_two_ranges[0])
    compared = 0
    for (symbol, start), row in rows_of(datasets_of_two_ranges[0]).items():
        if weeks_shown(row) < 2:
            continue
        asked = outlook.find_outlook(symbol, date.fromisoformat(start), SHOWN, NOW)
        view = outlook.read_view(asked, ledger, ())
        assert render_published(view.draft.messages) == row["prompt"]
        assert view.actual and view.actual.label.text == row["label"]
        assert [item["id"] for item in view.sources["news"]] == row["news_ids"]
        assert view.sources["quarter"]["filing"] == row["filing"]
        compared += 1
    assert compared == 24
    ledger.close()


def test_a_forecast_beside_a_dataset_asks_nobody(
    run_forecast: Forecast,
    datasets_of_two_ranges: tuple[Path, Path],
    market: Market,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = market.counts()
    data = ("--data_folder", str(datasets_of_two_ranges[0]))
    assert run_forecast("--symbol", "meta", "--date", "2026-03-24", *data) == 0
    assert market.counts() == before
    row = rows_of(datasets_of_two_ranges[0])["META", "2026-03-20"]
    record = json.loads((tmp_path / "forecasts" / "META_2026-03-20.json").read_text(encoding="utf-8"))
    assert record["prompt"] == row["prompt"]
    assert record["prompt_sha256"] == row["prompt_sha256"]
    assert record["recipe"] == RECIPE
    assert record["actual"] == {"label": row["label"], "weekly_return_pct": row["weekly_return_pct"]}
    printed = capsys.readouterr().out
    assert "2 past weeks, with technical indicators, with the market environment (as recorded with" in printed
    assert "The week to 2026-03-27 is under way: news since the close of 2026-03-20 is not used" in printed
    assert f"What then happened: {row['label']}" in printed


# --- a forecast by itself -----------------------------------------------------------------------------------


def test_a_forecast_fetches_what_it_needs_and_a_second_run_asks_nothing_and_writes_the_same(
    run_forecast: Forecast,
    datasets_of_two_ranges: tuple[Path, Path],
    market: Market,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = market.counts()
    assert run_forecast("--symbol", "META", "--date", "2026-03-20") == 0
    after = market.counts()
    asked = {name: after[name] - before[name] for name in ("company-news", "stock/profile2", "stock/metric")}
    assert asked == {"company-news": 1, "stock/profile2": 1, "stock/metric": 1}
    path = tmp_path / "forecasts" / "META_2026-03-20.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    # From a ledger of its own, and still the row of the dataset.
    assert record["prompt"] == rows_of(datasets_of_two_ranges[0])["META", "2026-03-20"]["prompt"]
    first = record["sources"]["news"][0]
    assert first["url"] == f"https://finnhub.io/api/news?id={first['id'].removeprefix('finnhub:')}"
    assert set(record["sources"]["closes"]) == {"2026-03-06", "2026-03-13", "2026-03-20"}
    assert record["unreadable"] and record["forecast"] is None
    assert "No forecast can be read in this answer" in capsys.readouterr().out
    content = path.read_bytes()
    later = NOW.replace(hour=18)
    assert run_forecast("--symbol", "META", "--date", "2026-03-20", now=later) == 0
    assert market.counts() == after
    assert path.read_bytes() == content
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    for found in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.sqlite")]:
        assert FINNHUB_KEY.encode() not in found.read_bytes()


def test_another_answer_for_the_same_week_sets_the_former_record_aside(
    run_forecast: Forecast,
    datasets_of_two_ranges: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--symbol", "AAPL", "--date", "2026-03-20", "--data_folder", str(datasets_of_two_ranges[0]))
    assert run_forecast(*flags) == 0
    former = (tmp_path / "forecasts" / "AAPL_2026-03-20.json").read_bytes()
    assert run_forecast(*flags, "--max_new_tokens", "3") == 0
    assert "held another forecast: it is now AAPL_2026-03-20." in capsys.readouterr().out
    kept = {path.name: path for path in (tmp_path / "forecasts").iterdir()}
    assert len(kept) == 2
    assert json.loads(kept.pop("AAPL_2026-03-20.json").read_text())["max_new_tokens"] == 3
    assert [path.read_bytes() for path in kept.values()] == [former]


def test_the_week_that_is_still_to_come_has_no_outcome(
    run_forecast: Forecast, datasets_of_two_ranges: tuple[Path, Path], tmp_path: Path
) -> None:
    data = ("--data_folder", str(datasets_of_two_ranges[1]))
    friday_evening = datetime(2026, 4, 10, 22, tzinfo=UTC)
    assert run_forecast("--symbol", "AAPL", *data, now=friday_evening) == 0
    record = json.loads((tmp_path / "forecasts" / "AAPL_2026-04-10.json").read_text(encoding="utf-8"))
    assert (record["actual"], record["target_end"]) == (None, "2026-04-17")
    assert record["made_at"] == "2026-04-10T22:00:00+00:00"
    weeks = read_prompt(split_published(record["prompt"]).user).weeks
    assert [week.end.isoformat() for week in weeks] == ["2026-04-02", "2026-04-10"]


def test_flags_come_before_the_record_and_the_pipelines_defaults_after_it(
    adapter: Path, tmp_path: Path
) -> None:
    def found(record: dict[str, Any], *flags: str) -> tuple[Shown, str]:
        run = FinishedRun(tmp_path, None, {}, record)  # type: ignore[arg-type]
        return recipe_of(parse_flags(["--adapter", "a", "--symbol", "A", *flags]), run)

    no_record = "defaults of data_pipeline.py: the adapter's record names none"
    assert found({}) == (Shown(1, 4, False, False), no_record)
    assert found({"recipe": RECIPE}) == (SHOWN, "as recorded with the adapter")
    assert found({"recipe": RECIPE}, "--max_past_weeks", "3") == (
        replace(SHOWN, max_past_weeks=3),
        "--max_past_weeks as given, the rest as recorded with the adapter",
    )
    assert found({}, "--with_macro")[0] == Shown(with_macro=True)


# --- any prompt ---------------------------------------------------------------------------------------------


def test_any_text_is_answered_without_data(run_forecast: Forecast, market: Market, tmp_path: Path) -> None:
    before = market.counts()
    published = "[INST]<<SYS>>\nYou are an analyst.\n<</SYS>>\n\nWill AAPL rise?[/INST]"
    for name, text in (("plain.txt", "Will AAPL rise?"), ("published.txt", published)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert run_forecast("--prompt", name) == 0
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "forecasts").iterdir())]
    assert {record["prompt"] for record in records} == {"Will AAPL rise?", published}
    assert market.counts() == before
    assert not (tmp_path / "data").exists()


def test_a_fully_fine_tuned_model_answers_as_an_adapter_does(
    run_forecast: Forecast, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("rows")
    write_dataset(data)
    folder = finished_run(data / "run", data, "--tuner", "full")
    (tmp_path / "prompt.txt").write_text("Will AAPL rise?", encoding="utf-8")
    assert run_forecast("--prompt", "prompt.txt", adapter=folder) == 0
    (path,) = (tmp_path / "forecasts").iterdir()
    record = json.loads(path.read_text())
    assert (record["adapter"], record["base_model"]) == (str(folder), str(ROOT / "sample" / "base"))
    assert record["adapter_sha256"] == sha256_of(folder / "model.safetensors")


def test_it_is_a_program_that_ends_with_its_status(adapter: Path, market: Market, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("", encoding="utf-8")
    flags = ("--adapter", str(adapter), "--prompt", "prompt.txt")
    done = run_entry("forecast.py", tmp_path, *flags, **market.environment())
    assert done.returncode == 2
    problem = "--prompt: prompt.txt is empty. Write the prompt into it."
    assert done.stderr == f"\nforecast.py cannot start, 1 to mend:\n  - {problem}\n"


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "command line: neither --symbol nor --prompt. Give one of the two."),
        (("--symbol", "AAPL", "--prompt", "p"), "command line: --symbol and --prompt are both given."),
        (("--prompt", "none.txt"), "--prompt: none.txt cannot be read (No such file or directory)."),
        (("--prompt", "empty.txt"), "--prompt: empty.txt is empty."),
        (("--prompt", "odd.txt"), "--prompt: odd.txt cannot be read (it is no UTF-8 text)."),
        (("--prompt", "long.txt"), "--prompt: is too long: more than 4084 tokens even without its news."),
        (("--prompt", "empty.txt", "--date", "2026-03-06"), "--prompt: takes no data."),
        (("--symbol", "AA PL"), "--symbol: is 'AA PL'. Give one ticker, such as AAPL or BRK.B."),
        (("--symbol", "AAPL,META"), "--symbol: is 'AAPL,META'. Give one ticker"),
        (("--symbol", "SIE.L"), "--symbol: SIE.L is of another exchange than New York's."),
        (("--symbol", "SAP.DE"), "--symbol: is SAP.DE, for which Finnhub has no company news."),
        (("--symbol", "AAPL", "--date", "06.03.2026"), "--date: is '06.03.2026'. Give a day as YYYY-MM-DD."),
        (("--symbol", "AAPL", "--date", "2026-11-22"), "--date: 2026-11-22 is in the future."),
        (("--symbol", "AAPL", "--date", "2005-03-06"), "--date: 2005-03-06 is before what vendors serve."),
        (("--symbol", "AAPL", "--min_past_weeks", "0"), "--min_past_weeks: is 0."),
        (("--symbol", "AAPL", "--min_past_weeks", "3"), "--max_past_weeks: is 2."),
        (("--symbol", "AAPL", "--max_new_tokens", "4096"), "--max_new_tokens: is 4096;"),
        (("--symbol", "AAPL", "--calls_per_minute", "0"), "--calls_per_minute: is 0."),
        (("--symbol", "AAPL", "--news_file", "none.csv"), "--news_file none.csv: it cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_command_is_refused_before_anybody_is_asked(
    flags: tuple[str, ...],
    message: str,
    run_forecast: Forecast,
    market: Market,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long.txt").write_text("word " * 9000, encoding="utf-8")
    before = market.counts()
    assert run_forecast(*flags) == 2
    assert f"\nforecast.py cannot start, 1 to mend:\n  - {message}" in capsys.readouterr().err
    assert market.counts() == before
    assert not (tmp_path / "forecasts").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(
            ("--symbol", "GONE", "--date", "2026-03-06"),
            "--symbol: GONE has no prices: the price vendor does not serve the symbol.",
            id="a symbol that no vendor serves",
        ),
        pytest.param(
            ("--symbol", "AAPL", "--date", "2025-11-05"),
            "--date: there is no news about AAPL from 2025-10-03 to 2025-10-31. Finnhub's free plan serves "
            "about 365 days.",
            id="before the news that the vendor serves",
        ),
        pytest.param(
            ("--symbol", "AAPL", "--date", "2026-05-01"),
            "--date: there is no closing price of AAPL on 2026-05-01; the last one before is of 2026-04-17. "
            "Yahoo shows some closes hours late",
            id="a close that Yahoo does not show yet",
        ),
    ],
)  # fmt: skip
def test_what_vendors_do_not_have_is_told_before_the_model_is_loaded(
    flags: tuple[str, ...],
    message: str,
    run_forecast: Forecast,
    adapter_without_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_forecast(*flags, adapter=adapter_without_recipe) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "forecasts").exists()


def test_a_close_of_half_an_hour_ago_is_too_fresh(
    run_forecast: Forecast, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_forecast("--symbol", "AAPL", now=datetime(2026, 3, 6, 21, 30, tzinfo=UTC)) == 2
    assert (
        "--date: the close of 2026-03-06 is of 21:00 UTC, too fresh for its price. Vendors show the official "
        "one later: run this after 22:00 UTC" in capsys.readouterr().err
    )


def test_without_a_key_and_without_news_of_ones_own_nothing_is_asked(
    run_forecast: Forecast, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINNHUB_API_KEY", "")
    assert run_forecast("--symbol", "AAPL") == 2
    assert "FINNHUB_API_KEY: is missing. Put FINNHUB_API_KEY=... into .env" in capsys.readouterr().err


def test_a_refused_key_is_told_without_the_key(
    run_forecast: Forecast, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINNHUB_API_KEY", "a-key-of-somebody-else")
    assert run_forecast("--symbol", "AAPL", "--date", "2026-03-06") == 2
    told = capsys.readouterr().err
    assert "Finnhub: the key was refused (HTTP 401)." in told
    assert "a-key-of-somebody-else" not in told


def test_a_data_folder_in_use_is_told_with_its_holder(
    run_forecast: Forecast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "data"):
        assert run_forecast("--symbol", "AAPL", "--date", "2026-03-06") == 2
    assert "--data_folder: data is in use by process " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "is no folder."),
        (lambda run: (run / "adapter_config.json").unlink(), "lacks adapter_config.json."),
        (lambda run: (run / "chat_template.jinja").unlink(), "lacks chat_template.jinja."),
        (lambda run: (run / "run_config.json").write_text("{"), "/run_config.json: is not whole JSON"),
        (
            lambda run: write(
                run / "dataset.json",
                {"fingerprint_sha256": "0", "training_labels": {}, "recipe": RECIPE | {"with_macro": "yes"}},
            ),
            "A recipe holds min_past_weeks, max_past_weeks, with_indicators, with_macro.",
        ),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(
    spoil: Callable[[Path], object],
    message: str,
    run_forecast: Forecast,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(adapter, copy)
    spoil(copy)
    assert run_forecast("--symbol", "AAPL", adapter=copy) == 2
    told = capsys.readouterr().err
    assert ("  - --adapter: " in told or f"  - {copy}/" in told) and message in told


def test_news_and_prices_of_ones_own_need_no_key(
    run_forecast: Forecast,
    adapter_without_recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    market: Market,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FINNHUB_API_KEY", "")
    before = market.counts()
    flags = ("--symbol", "AAPL", "--date", "2026-03-06", "--with_indicators", "--data_folder", "own")
    files = ("--news_file", str(ROOT / "sample" / "news.csv"))
    files += ("--price_file", str(ROOT / "sample" / "weekly_closes.csv"))
    assert run_forecast(*flags, *files, adapter=adapter_without_recipe) == 0
    assert market.counts() == before
    record = json.loads((tmp_path / "forecasts" / "AAPL_2026-03-06.json").read_text(encoding="utf-8"))
    assert record["sources"]["closes_from"][0]["endpoint"] == "price-file"
    assert len(record["sources"]["files_sha256"]) == 2
    assert record["flags"] == ["indicators_incomplete", "prices_adjusted_only"]
