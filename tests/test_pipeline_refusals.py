"""What a user can get wrong with data_pipeline.py: one clear message each, exit status 2, before any call.
And no key is in anything that a run leaves or says."""

from __future__ import annotations

import base64
import importlib
import json
import math
import os
import pty
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq
import pytest
from loopback_market import CHAT, Asked, Fault, Market, World, redirected
from processes import ROOT, run_entry

from forecaster.calls import Call, Request
from forecaster.data.ledger import Ledger

WORLD = World(("AAPL", "MSFT"), first_day=date(2026, 1, 5), last_day=date(2026, 3, 27))
FLAGS = {"--index_name": "AAPL,MSFT", "--start_date": "2026-01-05", "--end_date": "2026-03-27"}
TEMPLATE = ["--teacher", "template"]
STAGES = "Stages: plan, fetch, label, build, audit, describe, convert."
INDEX_HELP = "Use dow, nasdaq, euro, crypto, tickers such as AAPL,MSFT, or a file of tickers."
FILE_HELP = "Give a .csv, .jsonl or .parquet file, text as UTF-8."
DATASET_HELP = (
    "Give a folder made by save_to_disk, a .jsonl or .parquet file, a short name such as "
    "dow30-202305-202405, or a hub id together with --from_remote."
)
TIME_HELP = (
    "Times are unix seconds or milliseconds, ISO 8601 (in UTC where no offset is given), YYYYMMDDHHMMSS (New "
    "York time), or as in e-mails; a headline is needed too."
)
PRICE_HELP = "Each day has one positive price in digits, its date as 2026-01-30; mend the file."
LEDGER_HELP = "Move it away, or use another --data_folder."
TOLERATED = {"data", "data/ledger.sqlite", "data/pipeline.lock"}
"""What a refused start may leave: a lock file, and a ledger without a call."""


def flags(**changed: str) -> list[str]:
    """`FLAGS` with some of them changed; flags that are not there are added."""
    return [
        word for pair in (FLAGS | {f"--{name}": v for name, v in changed.items()}).items() for word in pair
    ]


def told(*problems: str) -> str:
    """What stands on stderr for these problems, and nothing else."""
    lines = "".join(f"  - {problem}\n" for problem in problems)
    return f"\ndata_pipeline.py cannot start, {len(problems)} to mend:\n{lines}"


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def assert_nothing_new(folder: Path, before: set[str]) -> None:
    """No file but a lock and a ledger without calls."""
    new = names_in(folder) - before
    assert new <= TOLERATED
    if "data/ledger.sqlite" in new:
        with closing(sqlite3.connect(folder / "data" / "ledger.sqlite")) as ledger:
            assert ledger.execute("SELECT COUNT(*) FROM calls").fetchone() == (0,)


# --- as a user starts it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "env", "problems"),
    [
        pytest.param(
            flags(end_date="2026-01-04"),
            {},
            ["--end_date: is 2026-01-04. It has to be after 2026-01-05."],
            id="end before start",
        ),
        pytest.param(
            flags(index_name="sp500"), {}, [f"--index_name: is 'sp500'. {INDEX_HELP}"], id="unknown index"
        ),
        pytest.param(
            flags(),
            {"FINNHUB_API_KEY": "", "OPENAI_API_KEY": ""},
            [
                "FINNHUB_API_KEY: is missing. Put FINNHUB_API_KEY=... into .env, or set it in the "
                "environment. Or bring your own news with --news_file.",
                "OPENAI_API_KEY: is missing. Put OPENAI_API_KEY=... into .env, or set it in the environment. "
                "Any word will do for a server without keys; --teacher template needs none.",
            ],
            id="missing keys",
        ),
        pytest.param(
            flags(news_file="news.csv", price_file="prices.csv"),
            {},
            [
                "--news_file news.csv: no column for time, headline, symbol; its columns are 'when', 'what'. "
                "A news file needs datetime, headline, source, url, summary (Finnhub; without a symbol or "
                "related column its name begins with the ticker, as in AAPL_week1.csv), or Date, "
                "Article_title, Stock_symbol (FNSPID), or one of date, datetime, published_at, time, one of "
                "headline, title, and one of symbol, ticker. Rename the columns.",
                "--price_file prices.csv: no date column; its columns are 'day', 'AAPL'. A price file needs "
                "a date column, and either one column per ticker (AAPL, or close_AAPL) of adjusted closes, "
                "or the columns symbol (or ticker) and close, and if known adj_close (or adj close, "
                "adj._close, adjclose, adjusted_close, in any case) and split (or stock_splits). Without an "
                "adjusted column, close is taken as adjusted, and there must be no split column. Rename the "
                "columns.",
            ],
            id="files without the needed columns",
        ),
        pytest.param(
            flags(train_ratio="1.5", min_past_weeks="5", index_name="sp500"),
            {},
            [
                "--max_past_weeks: is 4. It has to be --min_past_weeks (5) or more.",
                "--train_ratio: is 1.5. It is a share of weeks, above 0 and below 1.",
                f"--index_name: is 'sp500'. {INDEX_HELP}",
            ],
            id="ratio outside 0 to 1, min above max, unknown index, all at once",
        ),
        pytest.param(
            flags(end_date="2026-02-20"),
            {},
            [
                "--start_date, --end_date: leave 7 finished weeks: 3 for training, 0 for testing. Needed are "
                "1 of history, then --train_ratio (0.6) of the rest for training, 4 left out "
                "(--max_past_weeks), and one or more for testing. Take a longer range, another ratio, or "
                "fewer past weeks."
            ],
            id="too few weeks for split and embargo",
        ),
    ],
)
def test_bad_input_is_told_at_once_and_nobody_is_asked(
    tmp_path: Path, more: list[str], env: dict[str, str], problems: list[str]
) -> None:
    (tmp_path / "news.csv").write_text("when,what\n2026-01-06,A thing happened\n")
    (tmp_path / "prices.csv").write_text("day,AAPL\n2026-01-06,250.5\n")
    before = names_in(tmp_path)
    with Market(WORLD) as market:
        done = run_entry("data_pipeline.py", tmp_path, *more, **market.environment(**env))
    assert (done.returncode, done.stderr) == (2, told(*problems))
    assert market.log == []
    assert_nothing_new(tmp_path, before)


@pytest.mark.parametrize(
    ("name", "more", "message", "calls"),
    [
        (
            "FINNHUB_API_KEY",
            TEMPLATE,
            "\nFinnhub: the key was refused (HTTP 401).\nMend the key; the same command then goes on.\n",
            {"stock/profile2": 1},
        ),
        (
            "OPENAI_API_KEY",
            [],
            "\nteacher loopback-teacher: the key was refused (HTTP 401).\n"
            "Mend the key; the same command then goes on.\n",
            {"models/loopback-teacher": 1},
        ),
    ],
)
def test_a_refused_key_is_told_after_one_call(
    tmp_path: Path, name: str, more: list[str], message: str, calls: dict[str, int]
) -> None:
    with Market(WORLD) as market:
        env = market.environment(**{name: "sk-Canary+of/a=key"})
        done = run_entry("data_pipeline.py", tmp_path, *flags(calls_per_minute="1800"), *more, **env)
    assert done.returncode == 2
    # Before it stands a progress bar, or nothing.
    assert done.stderr.endswith(message) and "Traceback" not in done.stderr
    assert "canary" not in (done.stdout + done.stderr).lower()
    assert market.counts() == calls
    assert_nothing_new(tmp_path, set())


def test_without_a_stdin_it_does_not_ask_and_goes_on(tmp_path: Path) -> None:
    with Market(WORLD) as market:
        command = f'exec "{sys.executable}" "{ROOT}/data_pipeline.py" "$@" <&-'
        done = subprocess.run(
            ["bash", "-c", command, "bash", "label", *flags(), *TEMPLATE],
            cwd=tmp_path,
            env=os.environ | market.environment(),
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "teacher: template, no tokens" in done.stdout


# --- in this process: the same, and faster ------------------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market(WORLD) as found:
        yield found


Pipeline = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pipeline(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Pipeline]:
    """Runs the entry's `main` in `tmp_path`: exit status, stdout and stderr. Keyword arguments are
    environment variables; None takes one away. The market's log holds only what this test asked, unless
    another one is named (`at`)."""
    main = importlib.import_module("data_pipeline").main
    monkeypatch.chdir(tmp_path)
    market.log.clear()
    market.faults.clear()
    market.faults.shown.clear()

    def run(*argv: str, at: Market = market, **env: str | None) -> tuple[int, str, str]:
        capfd.readouterr()
        with redirected(at):
            os.environ.update({name: value for name, value in env.items() if value is not None})
            for name in (name for name, value in env.items() if value is None):
                os.environ.pop(name, None)
            status = main(argv)
        return (status, *capfd.readouterr())

    with patch.dict(os.environ):
        yield run


def assert_refused(pipeline: Pipeline, market: Market, argv: list[str], *problems: str) -> None:
    before = names_in(Path.cwd())
    assert pipeline(*argv) == (2, "", told(*problems))
    assert market.log == []
    assert_nothing_new(Path.cwd(), before)


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["describe"], "command line: describe needs a dataset. Name it after the stage."),
        (
            ["convert", "rows.jsonl"],
            "--model: is missing. Name the model whose chat template the copy is for.",
        ),
        (["feetch", *flags()], f"command line: 'feetch' is no stage. {STAGES}"),
        (["discribe", "rows.jsonl"], f"command line: 'discribe' is no stage. {STAGES}"),
        (
            ["fetch", "rows.jsonl", *flags()],
            "command line: 'fetch' takes no dataset, and 'rows.jsonl' is given. "
            f"{STAGES[:-1]}; audit, describe and convert take a dataset.",
        ),
        (["describe", "nowhere"], f"dataset: 'nowhere' does not exist. {DATASET_HELP}"),
        (["audit", "folder"], f"dataset: the folder folder was not made by save_to_disk. {DATASET_HELP}"),
        (["describe", "notes.txt"], f"dataset: notes.txt is no .jsonl or .parquet file. {DATASET_HELP}"),
        (
            ["describe", "rows.jsonl"],
            "rows.jsonl (train): lacks the columns prompt, answer, period, label, symbol (it has a). A "
            "dataset has the columns prompt, answer, period, label, symbol.",
        ),
        (
            ["audit", *flags(), *TEMPLATE],
            "audit: data/fingpt-forecaster-aapl-msft-20260105-20260327-1-4-06 does not exist. Build it "
            "first, with the same flags.",
        ),
    ],
)
def test_a_stage_without_what_it_works_on_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, argv: list[str], problem: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    assert_refused(pipeline, market, argv, problem)


@pytest.mark.parametrize("index", ["euro", "crypto"])
def test_an_index_without_company_news_needs_a_news_file(
    pipeline: Pipeline, market: Market, index: str
) -> None:
    problem = (
        f"--index_name: is {index}, for which Finnhub has no company news. Bring news with --news_file (csv, "
        "jsonl or parquet)."
    )
    assert_refused(pipeline, market, [*flags(index_name=index), *TEMPLATE], problem)


def test_weeks_before_the_index_is_known_are_refused(pipeline: Pipeline, market: Market) -> None:
    problem = (
        "--start_date: DOW_30's members are known from 2022-01-01 on, not on 2021-06-14. Start later, or use "
        "--current_members."
    )
    assert_refused(pipeline, market, [*flags(index_name="dow", start_date="2021-06-07"), *TEMPLATE], problem)


def test_weeks_that_are_not_over_are_left_out(pipeline: Pipeline, market: Market) -> None:
    status, out, err = pipeline("plan", *flags(end_date="9999-12-31"))
    last_week = date.fromisoformat(out.split("weeks ending 2026-01-09 to ")[1][:10])
    assert (status, err) == (0, "")
    assert last_week < datetime.now(UTC).date()
    assert market.log == []


def test_a_list_of_tickers_may_be_longer_than_a_file_name(pipeline: Pipeline) -> None:
    tickers = ",".join(f"T{number}" for number in range(99))
    status, out, _ = pipeline("plan", *flags(index_name=tickers))
    assert (len(tickers), status) == (385, 0)
    assert "\n99 symbols, 1089 symbol-weeks to forecast;" in out


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", f"--index_name: list.txt holds no ticker. {INDEX_HELP}"),
        (b"# none yet\n", f"--index_name: list.txt holds no ticker. {INDEX_HELP}"),
        (b"\0\1\2", rf"--index_name: list.txt holds '\x00\x01\x02'. {INDEX_HELP}"),
        (
            b"\xff\xfe",
            "--index_name: list.txt cannot be read ('utf-8' codec can't decode byte 0xff in position 0: "
            "invalid start byte). Give a text file of tickers.",
        ),
        (None, f"--index_name: is 'list.txt'. {INDEX_HELP}"),
    ],
    ids=["empty", "comments", "control characters", "binary", "a folder"],
)
def test_a_file_that_is_no_list_of_tickers_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "list.txt"
    path.mkdir() if content is None else path.write_bytes(content)
    assert_refused(pipeline, market, [*flags(index_name="list.txt"), *TEMPLATE], problem)


HEADER = "datetime,headline,symbol\n"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("absent.csv", "absent", f"it cannot be read (No such file or directory). {FILE_HELP}"),
        ("folder.csv", None, f"it cannot be read (Is a directory). {FILE_HELP}"),
        ("empty.csv", b"", f"it is empty. {FILE_HELP}"),
        ("binary.csv", bytes(range(256)), rf"it is not UTF-8 (byte b'\x80'). {FILE_HELP}"),
        ("binary.jsonl", bytes(range(256)), rf"it is not UTF-8 (byte b'\x80'). {FILE_HELP}"),
        (
            "text.parquet",
            b"PAR1 or so",
            "it is no parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or "
            f"this is not a parquet file.). {FILE_HELP}",
        ),
        ("news.txt", HEADER.encode(), f"its name ends in '.txt'. {FILE_HELP}"),
        (
            "bare.csv",
            HEADER.encode(),
            f"it has no rows. {TIME_HELP}",
        ),
    ],
)
def test_a_news_file_that_cannot_be_used_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, name: str, content: bytes | str | None, found: str
) -> None:
    if content is None:
        (tmp_path / name).mkdir()
    elif isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    assert_refused(pipeline, market, [*flags(news_file=name), *TEMPLATE], f"--news_file {name}: {found}")


def test_news_of_other_symbols_only_is_counted(pipeline: Pipeline, market: Market, tmp_path: Path) -> None:
    (tmp_path / "news.csv").write_text(HEADER + "2026-01-06T12:00:00,A thing happened,IBM\n")
    status, out, err = pipeline("plan", *flags(news_file="news.csv"), FINNHUB_API_KEY=None)
    assert (status, err, market.log) == (0, "", [])
    assert out.startswith("news files: 1 read, 1 rows, 1 left out: symbol not asked for\n")
    assert "No FINNHUB_API_KEY: news from the files only" in out


def test_a_symbol_none_of_whose_rows_can_be_used_is_refused_with_a_value(
    pipeline: Pipeline, market: Market, tmp_path: Path
) -> None:
    rows = (
        "01/06/2026 3 PM,A thing happened,AAPL\n01/07/2026 3 PM,Another,AAPL\n2026-01-06T12:00:00,Well,MSFT\n"
    )
    (tmp_path / "news.csv").write_text(HEADER + rows)
    found = "none of AAPL's 2 rows is a usable article (2 with no time, such as '01/06/2026 3 PM')."
    problem = f"--news_file news.csv: {found} {TIME_HELP}"
    assert_refused(pipeline, market, [*flags(news_file="news.csv"), *TEMPLATE], problem)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("date,AAPL\n2026-01-06,high\n", ", row 1: AAPL's price on 2026-01-06 is 'high'."),
        ("date,AAPL\n2026-01-06,0\n", ", row 1: AAPL's price on 2026-01-06 is '0'."),
        ("date,AAPL\n2026-01-06,1\n2026-01-06,2\n", ", row 2: it is a second price of AAPL on 2026-01-06."),
        ("date,symbol,close\n06/01/2026,AAPL,1\n", ", row 1: '06/01/2026' is no day."),
        ("date,AAPL\n", ": it has no rows."),
    ],
    ids=["text", "zero", "twice", "no day", "no rows"],
)
def test_a_price_file_that_cannot_be_used_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, content: str, found: str
) -> None:
    (tmp_path / "p.csv").write_text(content)
    problem = f"--price_file p.csv{found} {PRICE_HELP}"
    assert_refused(pipeline, market, [*flags(price_file="p.csv"), *TEMPLATE], problem)


def test_every_bad_file_is_told_and_the_good_one_is_not_imported(
    pipeline: Pipeline, market: Market, tmp_path: Path
) -> None:
    (tmp_path / "good.csv").write_text(HEADER + "2026-01-06T12:00:00,A thing happened,AAPL\n")
    (tmp_path / "p.csv").write_text("date,AAPL\n2026-01-06,x\n")
    argv = [*flags(price_file="p.csv"), "--news_file", "good.csv", "no.csv", *TEMPLATE]
    assert_refused(
        pipeline,
        market,
        argv,
        f"--news_file no.csv: it cannot be read (No such file or directory). {FILE_HELP}",
        f"--price_file p.csv, row 1: AAPL's price on 2026-01-06 is 'x'. {PRICE_HELP}",
    )


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("file", "File exists"),
        ("file/below", "Not a directory"),
        ("/dev/null/below", "Not a directory"),
        ("busy", "Is a directory"),
    ],
)
def test_a_data_folder_that_cannot_be_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, folder: str, reason: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "busy" / "pipeline.lock").mkdir(parents=True)
    problem = f"--data_folder: {folder} cannot be written ({reason}). Name another folder."
    assert_refused(pipeline, market, [*flags(data_folder=folder), *TEMPLATE], problem)


def database(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.mkdir(), "unable to open database file"),
        (lambda path: database(path, "CREATE TABLE people (name)"), "no such table: calls"),
        (lambda path: database(path, "CREATE TABLE calls (who, minutes)"), "no such column: id"),
        (
            # All columns that a look at it needs, so that only a write would stumble.
            lambda path: database(
                path,
                "CREATE TABLE calls (id, endpoint, symbol, window_start, window_end, variant, status, "
                "fetched_at, payload, count, truncated)",
            ),
            "no such column: sha256",
        ),
    ],
    ids=["a folder", "other tables", "another calls table", "a column short"],
)
def test_what_is_no_ledger_is_refused_and_stays_as_it_was(
    pipeline: Pipeline, market: Market, tmp_path: Path, make: Callable[[Path], Any], reason: str
) -> None:
    path = tmp_path / "data" / "ledger.sqlite"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    problem = f"data/ledger.sqlite: cannot be used as a ledger ({reason}). {LEDGER_HELP}"
    assert_refused(pipeline, market, [*flags(), *TEMPLATE], problem)
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.parametrize("content", [b"no database " * 400, b"short"], ids=["text", "short text"])
def test_a_ledger_that_is_no_database_is_told_to_be_damaged_and_stays_as_it_was(
    pipeline: Pipeline, market: Market, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "data" / "ledger.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    problem = (
        "data/ledger.sqlite: is damaged (file is not a database). Put a whole copy in its place "
        "(`sqlite3 FILE .recover` may save most of it), or move it away: then what it held is asked for anew."
    )
    assert_refused(pipeline, market, [*flags(), *TEMPLATE], problem)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (b"FINNHUB_API_KEY=\xff\n", [".env: is no UTF-8 text. Save it as UTF-8."]),
        (
            b"just words\n= =\n'''\n\"open\nFINNHUB_API_KEY\n",
            [
                "FINNHUB_API_KEY: is missing. Put FINNHUB_API_KEY=... into .env, or set it in the "
                "environment. Or bring your own news with --news_file."
            ],
        ),
    ],
    ids=["binary", "no assignments"],
)
def test_an_odd_env_file_is_told(
    pipeline: Pipeline, market: Market, tmp_path: Path, content: bytes, problems: list[str]
) -> None:
    (tmp_path / ".env").write_bytes(content)
    status, out, err = pipeline(*flags(), *TEMPLATE, FINNHUB_API_KEY=None)
    assert (status, out, market.log) == (2, "", [])
    assert err.endswith(told(*problems)) and "Traceback" not in err


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "http://127.0.0.1:port/v1", "http://[::1"])
def test_a_teacher_address_that_is_none_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path, url: str
) -> None:
    status, _, err = pipeline(*flags(), OPENAI_BASE_URL=url)
    problem = (
        "OPENAI_BASE_URL: is no web address. It begins with http:// or https:// and a host, as in "
        "http://127.0.0.1:8000/v1."
    )
    assert (status, err, market.log) == (2, told(problem), [])
    assert_nothing_new(tmp_path, set())


def test_a_model_that_the_teacher_does_not_serve_is_refused(
    pipeline: Pipeline, market: Market, tmp_path: Path
) -> None:
    status, _, err = pipeline(*flags(teacher_model="gpt-0"))
    problem = "--teacher_model: gpt-0 is not served. It serves loopback-teacher."
    assert (status, err) == (2, told(problem))
    assert market.counts() == {"models/gpt-0": 1, "models": 1}
    assert_nothing_new(tmp_path, set())


@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"\x04"], ids=["no", "return", "Ctrl-D"])
def test_at_a_terminal_it_asks_and_takes_no_for_an_answer(
    pipeline: Pipeline, market: Market, monkeypatch: pytest.MonkeyPatch, typed: bytes
) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed)
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        status, out, err = pipeline(*flags(), *TEMPLATE)
    os.close(ours)
    assert (status, err, market.log) == (0, "", [])
    assert out.endswith("Go on? [y/N] ")


# --- keys ---------------------------------------------------------------------------------------------------

CANARIES = {
    "FINNHUB_API_KEY": "ca+na/ry=1%Finnhub",
    "OPENAI_API_KEY": "sk-ca+na/ry=2%OpenAI",
    "HF_TOKEN": "hf_ca+na/ry=3%Hub",
    "WANDB_API_KEY": "ca+na/ry=4%Wandb",
}


def spellings(key: str) -> set[str]:
    """Ways in which a key can stand in a text, in lower case."""
    encoded = key.encode()
    found = {key, quote(key), quote(key, safe=""), quote_plus(key), quote(quote(key, safe=""), safe="")}
    found |= {json.dumps(key)[1:-1], repr(key)[1:-1], encoded.hex(), base64.b64encode(encoded).decode()}
    return {spelling.rstrip("=").lower() for spelling in found}


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in a folder that a key could hide in: names, files, unpacked ledgers and parquet files."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield name, name.encode()
        if not path.is_file():
            continue
        yield name, path.read_bytes()
        if path.suffix == ".parquet":
            yield name, str(pq.read_table(path).to_pylist()).encode()
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as ledger:
                for *columns, payload in ledger.execute("SELECT *, payload FROM calls"):
                    yield name, str(columns).encode() + zlib.decompress(payload)


def keys_found(folder: Path, *texts: str) -> list[tuple[str, str]]:
    """Names of keys, and where they stand; the `.env` itself is excepted."""
    places = [(name, content) for name, content in contents(folder) if name != ".env"]
    places += [(f"text {number}", text.encode()) for number, text in enumerate(texts)]
    return [
        (key, name)
        for name, content in places
        for key, value in CANARIES.items()
        if any(spelling.encode() in content.lower() for spelling in spellings(value))
    ]


def test_the_search_finds_keys_where_they_are_hard_to_see(tmp_path: Path) -> None:
    payload = f"https://host/?token={quote_plus(CANARIES['FINNHUB_API_KEY'])}"
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.record(Call(Request("profile", "AAPL"), "failed", datetime(2026, 1, 1, tzinfo=UTC), payload))
    (tmp_path / "log.txt").write_bytes(base64.b64encode(CANARIES["HF_TOKEN"].encode()))
    (tmp_path / ".env").write_text(CANARIES["OPENAI_API_KEY"])
    assert keys_found(tmp_path, CANARIES["WANDB_API_KEY"].upper()) == [
        ("FINNHUB_API_KEY", "l.sqlite"),
        ("HF_TOKEN", "log.txt"),
        ("WANDB_API_KEY", "text 0"),
    ]


class Chatterbox(Market):
    """A market whose refusals and crashes quote the key, raw and as it stood in the URL."""

    def answer(self, asked: Asked, key: str, body: dict[str, Any] | None, fault: Fault | None) -> Any:
        answer = super().answer(asked, key, body, fault)
        if answer.status < 400 or not key:
            return answer
        words = f"{key} {quote(key, safe='')} is not liked"
        if asked.face == "openai":
            content: Any = {"error": {"message": words, "type": words, "param": words, "code": None}}
        else:
            content = {"error": words}
        return replace(answer, content=content if answer.status != 500 else words)


def write_env(folder: Path) -> None:
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in CANARIES.items()))


def environment(market: Market, folder: Path) -> dict[str, str]:
    """The market's, but for the keys, which come from `.env`; what clients keep lies in `folder`."""
    env = market.environment(XDG_CACHE_HOME=str(folder / "cache"), HF_HOME=str(folder / "hf"))
    return {name: value for name, value in env.items() if name not in CANARIES}


def forget_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CANARIES:
        monkeypatch.delenv(name, raising=False)


def test_no_key_is_left_or_said_by_runs_with_broken_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_keys(monkeypatch)
    write_env(tmp_path)
    keys = {
        "finnhub_key": CANARIES["FINNHUB_API_KEY"],
        "openai_key": CANARIES["OPENAI_API_KEY"],
    }
    argv = [*flags(calls_per_minute="1800", push_to_hub="me/rows"), "--yes"]
    with Chatterbox(replace(WORLD, no_access=frozenset({"stock/metric"})), **keys) as market:
        env = environment(market, tmp_path)
        env |= {"OPENAI_LOG": "debug", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"{market.url}/hub"}
        market.faults.add("reset", numbers={1})
        market.faults.add("stall", numbers={2}, stall_s=0.5)
        market.faults.add("500", "stock/financials-reported", numbers={1})
        market.faults.add("429 with Retry-After", "stock/profile2", tries=7, retry_after_s=0, numbers={2})
        failed = run_entry("data_pipeline.py", tmp_path, *argv, **env)
        market.faults.add("reset", CHAT, numbers={1})
        market.faults.add("500", CHAT, numbers={2})
        finished = run_entry("data_pipeline.py", tmp_path, *argv, **env)
    assert market.faults.shown == {"reset": 2, "stall": 1, "500": 2, "429 with Retry-After": 7}
    assert failed.returncode == 1
    assert "no usable answer in 7 tries, in the last one HTTP 429." in failed.stdout
    assert "AAPL basic-financials: Finnhub: not part of the plan" in finished.stdout
    assert "openai._base_client" in finished.stderr, "the client did not log"
    assert "1-4-06 stands, but" in finished.stderr and "me/rows" in finished.stderr
    assert finished.returncode == 1 and "Traceback" not in failed.stderr + finished.stderr
    assert len(list((tmp_path / "data").glob("fingpt-forecaster-*/parquet/*.parquet"))) == 3
    assert keys_found(tmp_path, failed.stdout, failed.stderr, finished.stdout, finished.stderr) == []


def test_no_key_is_said_when_it_is_refused_or_nobody_answers(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_keys(monkeypatch)
    write_env(tmp_path)
    # No waits between the tries.
    for module in ("vendors.finnhub", "chat"):
        monkeypatch.setattr(f"forecaster.{module}._BACKOFF", lambda state: 0.0)
    days = [f"2026-{month:02d}-{day:02d},1,1\n" for month in (1, 2, 3) for day in range(1, 29)]
    (tmp_path / "prices.csv").write_text("date,AAPL,MSFT\n" + "".join(days))
    argv, template = flags(calls_per_minute="1800", price_file="prices.csv"), ["fetch", *TEMPLATE]
    with Chatterbox(WORLD) as market:
        env: dict[str, Any] = dict.fromkeys(CANARIES) | environment(market, tmp_path) | {"at": market}
        said = [pipeline(*argv, **env), pipeline(*template, *argv, **env)]
        assert market.counts() == {"models/loopback-teacher": 1, "stock/profile2": 1}
        market.faults.add("reset", None, tries=math.inf)
        said += [pipeline(*argv, **env), pipeline(*template, *argv, **env)]
    assert [status for status, _, _ in said] == [2, 2, 1, 1]
    assert "the key was refused (HTTP 401)" in said[0][2] and "the key was refused (HTTP 401)" in said[1][2]
    assert "a broken connection (" in said[2][2] and "a broken connection (ConnectionError)" in said[3][1]
    assert keys_found(tmp_path, *(text for _, *texts in said for text in texts)) == []
