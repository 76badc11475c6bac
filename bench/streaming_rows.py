"""Memory and speed of reading and tokenising many rows, as each rank does it before training.

    python bench/streaming_rows.py                 # 200,000 rows of about 6 kB; a few GB of temporary disk
    python bench/streaming_rows.py --row_bytes 1000

Writes a parquet file of rows made from the embedded sample (news repeated until a row has --row_bytes, or
left out), a row group at a time; then, in a process of its own, `sources.load` and `rows.tokenise` with the
embedded model's tokenizer. Prints rows per second and the peaks of that process: all of its resident pages
(VmHWM), and those that are not pages of files (RssAnon, looked at five times a second). The rest of VmHWM are
pages of the memory-mapped Arrow files, which ranks share and the kernel takes back when it needs them. Exits
with 1 when VmHWM is above --limit_gib.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
_ROWS_A_GROUP = 2_000
_SYMBOLS = 1_000
_SHORTEST_SAMPLE_BYTES = 1_500


def invented_rows(count: int, row_bytes: int) -> Iterator[dict[str, str]]:
    """Rows of the sample under other symbols and weeks, each with its number in its text."""
    lines = (ROOT / "sample" / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    sample = [json.loads(line) for line in lines]
    for number in range(count):
        row = sample[number % len(sample)]
        start = date(2015, 1, 4) + timedelta(weeks=number // _SYMBOLS)
        if row_bytes < _SHORTEST_SAMPLE_BYTES:
            bare = re.sub(r"(?s)<<SYS>>.*<</SYS>>|\[Headline\]:.*(?=Financials of)", "", row["prompt"])
            row = row | {"prompt": bare}
        missing = row_bytes - len(row["prompt"]) - len(row["answer"])
        # Every row is another one, so that nothing is tokenised from a cache.
        item = f"[Headline]: Note {number} of the day\n[Summary]: {'Shares moved a little on news. ' * 6}\n\n"
        news = item * max(missing // len(item), 0)
        yield {
            "prompt": row["prompt"]
            .replace("[Headline]:", news + "[Headline]:", 1)
            .replace("[Company Introduction]:", f"[Company Introduction]:\n\nNumber {number}."),
            "answer": row["answer"],
            "period": f"{start} to {start + timedelta(weeks=1)}",
            "label": row["label"],
            "symbol": f"S{number % _SYMBOLS:04d}",
        }


def write_parquet(path: Path, count: int, row_bytes: int) -> None:
    """A group of rows at a time, so that the file may be larger than memory."""
    import pyarrow
    import pyarrow.parquet

    writer = None
    group: list[dict[str, str]] = []
    for row in invented_rows(count, row_bytes):
        group.append(row)
        if len(group) == _ROWS_A_GROUP:
            table = pyarrow.Table.from_pylist(group)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            group = []
    if group:
        table = pyarrow.Table.from_pylist(group)
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def status_bytes(name: str) -> int:
    """A size of this process, as the kernel counts it."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def measure(path: Path) -> dict[str, Any]:
    """Load and tokenise in this process."""
    from forecaster.data import sources
    from forecaster.models import registry, templates
    from forecaster.tasks.weekly import WEEKLY
    from forecaster.training import tokenising

    peak_anon_bytes = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak_anon_bytes
        while not done.wait(0.2):
            peak_anon_bytes = max(peak_anon_bytes, status_bytes("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
    model = registry.resolve(str(ROOT / "sample" / "base"))
    assert isinstance(model, registry.BaseModel)
    tokenizer, _ = templates.load_tokenizer(model, trust_remote_code=False)
    imported_bytes = status_bytes("VmHWM")
    begin = time.monotonic()
    corpus = sources.load(sources.resolve(str(path), False, "--dataset"), None, task=WEEKLY)
    load_s = time.monotonic() - begin
    load_peak_bytes = status_bytes("VmHWM")
    begin = time.monotonic()
    reports = [tokenising.tokenise(part, tokenizer, 4096, WEEKLY)[1] for part in corpus.parts.values()]
    tokenise_s = time.monotonic() - begin
    done.set()
    return {
        "rows": sum(report.rows for report in reports),
        "tokens": sum(report.tokens for report in reports),
        "load_s": load_s,
        "tokenise_s": tokenise_s,
        "imported_bytes": imported_bytes,
        "load_peak_bytes": load_peak_bytes,
        "peak_bytes": status_bytes("VmHWM"),
        "peak_anon_bytes": peak_anon_bytes,
        "fingerprint": corpus.fingerprint,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--row_bytes", type=int, default=6_000)
    parser.add_argument("--limit_gib", type=float, default=2.0)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return 0
    with tempfile.TemporaryDirectory(prefix="streaming-rows-") as folder:
        path = Path(folder) / "rows.parquet"
        write_parquet(path, args.rows, args.row_bytes)
        caches = {"HF_DATASETS_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, env=os.environ | caches, stdout=subprocess.PIPE, text=True, check=True)
        disk_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{found['rows']:,} rows, {found['tokens']:,} tokens; disk {disk_bytes / 2**30:.2f} GiB")
    print(f"load      {found['load_s']:7.1f} s  {found['rows'] / found['load_s']:8.0f} rows/s")
    print(f"tokenise  {found['tokenise_s']:7.1f} s  {found['rows'] / found['tokenise_s']:8.0f} rows/s")
    for name, label in (
        ("imported_bytes", "libraries imported"),
        ("load_peak_bytes", "peak after loading"),
        ("peak_bytes", "peak"),
        ("peak_anon_bytes", "peak without pages of files"),
    ):
        print(f"{label:28} {found[name] / 2**30:6.2f} GiB")
    print(f"fingerprint {found['fingerprint']}")
    if found["peak_bytes"] > args.limit_gib * 2**30:
        print(f"More than {args.limit_gib:g} GiB.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
