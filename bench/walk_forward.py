"""A walk over real weeks with the embedded model: how long it takes, and what it comes to.

The rows are jsonl with the five columns, whose prompts have bracketed sections ([NEWS] among them):

    python bench/walk_forward.py                                  # the sample, as it is
    python bench/walk_forward.py rows_2023_2025.jsonl --every 26 --kill 5

A model this small reads 4,096 tokens of a vocabulary made for the sample, at which such rows are 4,000 long:
without --whole they are cut to the signals before their news and to a line of each part of the answer.
With --kill it is killed so many times at random moments, each time with all of its processes, and goes on;
a report that differs from that of a walk that nobody disturbed ends the script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
MARK = "FORECASTER_WALK_BENCH"
REPORTS = ("report.md", "report.html", "metrics.json", "predictions.jsonl", "rows.jsonl", "by_cut.md")
LONGEST_LINE = 70
SETTINGS = (
    *("--base_model", str(ROOT / "sample/base"), "--max_length", "1024", "--max_new_tokens", "160"),
    *("--batch_size", "8", "--gradient_accumulation_steps", "1", "--learning_rate", "5e-3"),
    *("--evaluation_strategy", "no", "--report_to", "none"),
)


def shortened(row: dict[str, str]) -> dict[str, str]:
    """System text, signals and question; of the answer a line of each part."""
    head, _, body = row["prompt"].partition("<</SYS>>")
    begins = body.find("[QUANT SIGNALS")
    signals = body[begins : body.find("[NEWS]")].strip() if begins >= 0 else ""
    question = body[body.rfind("Based on all") :]
    prompt = f"{head}<</SYS>>\n\n{signals}\n\n{question}"
    parts = [line for line in row["answer"].splitlines() if line.strip()]
    firsts = [line for line in parts if re.match(r"1\. ", line)]
    told = next(line for line in parts if line.startswith("Prediction:"))
    analysis = next((line for line in parts if line.startswith("Analysis:")), "Analysis: none.")
    positive, concern = (line[:LONGEST_LINE].strip() for line in firsts[:2])
    answer = (
        f"[Positive Developments]:\n{positive}\n\n[Potential Concerns]:\n{concern}\n\n"
        f"[Prediction & Analysis]:\n{told[:LONGEST_LINE].strip()}\n{analysis[:LONGEST_LINE].strip()}"
    )
    return {**row, "prompt": prompt, "answer": answer}


def write_rows(source: Path | None, target: Path, whole: bool) -> None:
    files = [source] if source else [ROOT / f"sample/dataset/{name}.jsonl" for name in ("train", "test")]
    # Not splitlines: texts may hold other line separators of Unicode.
    lines = [line for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]
    rows = [json.loads(line) for line in lines]
    kept = rows if whole or source is None else [shortened(row) for row in rows]
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")


def start(rows: Path, folder: Path, flags: list[str]) -> tuple[subprocess.Popen[bytes], str]:
    mark = secrets.token_hex(8)
    command = [sys.executable, str(ROOT / "walk_forward.py"), *SETTINGS, "--dataset", rows.name]
    return subprocess.Popen(
        [*command, "--output_dir", str(folder), *flags], cwd=rows.parent, env=os.environ | {MARK: mark}
    ), mark


def kill_all(mark: str) -> None:
    while left := [
        p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get(MARK) == mark
    ]:
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", type=Path, nargs="?", help="default: the sample")
    parser.add_argument("--every", default="13")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--num_epochs", default="1")
    parser.add_argument("--from_last", action="store_true")
    parser.add_argument("--whole", action="store_true", help="rows as they are")
    parser.add_argument("--kill", type=int, default=0, help="times that a second walk is killed")
    parser.add_argument("--keep", type=Path, help="folder of the walk; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = options.keep.resolve() if options.keep else Path(name)
        home.mkdir(parents=True, exist_ok=True)
        rows = home / "rows.jsonl"
        write_rows(options.rows, rows, options.whole)
        flags = ["--every", options.every, "--seeds", options.seeds, "--num_epochs", options.num_epochs]
        flags += ["--from_last"] if options.from_last else []
        began = time.monotonic()
        walk, _ = start(rows, home / "walk", flags)
        if status := walk.wait():
            return status
        seconds = time.monotonic() - began
        print(f"\n{seconds:.0f} s\n\n{(home / 'walk/benchmark/by_cut.md').read_text(encoding='utf-8')}")
        return same_after_kills(rows, home, flags, options.kill, seconds) if options.kill else 0


def same_after_kills(rows: Path, home: Path, flags: list[str], kills: int, seconds: float) -> int:
    """Walk once more, killed at random moments; returns 1 where its report differs."""
    moments = random.Random(0)
    for _ in range(kills):
        walk, mark = start(rows, home / "killed", flags)
        try:
            walk.wait(moments.uniform(0, 2 * seconds / (kills + 1)))
        except subprocess.TimeoutExpired:
            kill_all(mark)
            walk.wait()
    walk, _ = start(rows, home / "killed", flags)
    if status := walk.wait():
        return status
    folders = [home / name / "benchmark" for name in ("walk", "killed")]
    differing = [n for n in REPORTS if len({(folder / n).read_bytes() for folder in folders}) > 1]
    print(f"\nKilled {kills} times: {', '.join(differing) or 'no file'} differs")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
