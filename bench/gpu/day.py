"""Nine minutes on one GPU: starts of the program, then speed and memory of an 8B shape and of generation.

    bash bench/gpu/run.sh             # on a bare machine: installs what prepare.sh packed, and runs this
    python bench/gpu/day.py           # where everything is installed
    python bench/gpu/day.py --tiny    # the same program on a CPU with the embedded base

Every result is a line of $OUT/results.jsonl, on disk as soon as it is there, so that being cut off costs the
case in flight alone. Cases run in order of worth (cases.py) and stop at $LIMIT_S seconds. The next case's
process imports while the one before it has the GPU. This process knows no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.gpu.cases import BASE, CASES, STARTS, TINY_STARTS, Case, tiny

CASE_LIMIT_S, STARTS_LIMIT_S = 110.0, 110.0
FEWEST_S = 30.0
"""Less than this is not enough for a case."""
KEPT_LINES = 300
ROOM_BYTES = 40e9
"""Of /dev/shm, so that the base model is written into memory."""


@dataclass(frozen=True)
class Day:
    """Where results go, and when it ends."""

    out: Path
    work: Path
    ends_s: float
    is_tiny: bool
    began_s: float

    @property
    def left_s(self) -> float:
        return self.ends_s - time.monotonic()

    def record(self, **found: Any) -> None:
        line = json.dumps(found | {"at_s": round(time.monotonic() - self.began_s, 1)})
        with (self.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(line, flush=True)

    def keep_log(self, name: str, log: Path) -> list[str]:
        """Put the end of a process's output into $OUT/logs.txt; returns all of its lines."""
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        with (self.out / "logs.txt").open("a", encoding="utf-8") as file:
            file.write("\n".join([f"===== {name}", *lines[-KEPT_LINES:]]) + "\n")
        return lines


@dataclass(frozen=True)
class Started:
    """A process in a group of its own, and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    answer: Path | None = None


def main(argv: Sequence[str]) -> int:
    is_tiny = "--tiny" in argv
    began_s = time.monotonic()
    out = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="gpu_day_"))
    out.mkdir(parents=True, exist_ok=True)
    roomy = Path("/dev/shm")
    is_roomy = not is_tiny and roomy.exists() and shutil.disk_usage(roomy).free > ROOM_BYTES
    work = Path(tempfile.mkdtemp(prefix="gpu_day_", dir=roomy if is_roomy else None))
    ends_s = began_s + float(os.environ.get("LIMIT_S", "540"))
    day = Day(out, work, ends_s, is_tiny, began_s)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # so that nothing is left running
    try:
        day.record(machine=gpu_of_driver(), cores=os.cpu_count(), out=str(out), work=str(work))
        run(day, tiny(CASES) if is_tiny else CASES)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(out / "results.jsonl"))
    return 0


def run(day: Day, cases: Sequence[Case]) -> None:
    """The base model and, beside it, the program's starts; then case after case."""
    running: list[Started] = []
    try:
        running.append(start_case(day, 0, BASE))
        running += [start_program(day, *start) for start in (TINY_STARTS if day.is_tiny else STARTS).items()]
        finish_case(day, running[0], day.left_s - FEWEST_S)
        running.append(start_case(day, 1, cases[0]))
        starts_end_s = time.monotonic() + min(STARTS_LIMIT_S, day.left_s / 3)
        for started in running[1:-1]:
            judge_start(day, started, starts_end_s)
        for number, _ in enumerate(cases, 1):
            if day.left_s < FEWEST_S:
                day.record(skipped=[case.name for case in cases[number - 1 :]])
                break
            current = running[-1]
            if number < len(cases):
                running.append(start_case(day, number + 1, cases[number]))
            finish_case(day, current, min(day.left_s - FEWEST_S / 3, CASE_LIMIT_S))
    finally:
        for started in running:
            end(started)


# --- cases --------------------------------------------------------------------------------------------------


def start_case(day: Day, number: int, case: Case) -> Started:
    """A process of measure.py, which waits for a line before it takes the GPU."""
    log, answer = day.work / f"case_{number}.txt", day.work / f"answer_{number}.json"
    script = str(Path(__file__).with_name("measure.py"))
    words = [sys.executable, script, case.to_json(), str(day.work), str(answer)]
    env = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not case.cudnn:
        env["TORCH_CUDNN_SDPA_DEPRIORITIZED"] = "1"
    if day.is_tiny:
        words.append("--tiny")
    elif case.kind == "training":  # as a launcher would: DeepSpeed on one rank
        env |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        env |= {"MASTER_PORT": str(29600 + number), "NCCL_SOCKET_IFNAME": "lo"}
    return Started(case.name, start(words, log, env), log, answer)


def finish_case(day: Day, started: Started, most_s: float) -> None:
    """Let a case begin, wait for it, and record what it found; cut off, what it had found until then."""
    assert started.answer
    began_s = time.monotonic()
    status: int | str
    try:
        started.process.communicate(b"go\n", timeout=max(most_s, 1))
        status = started.process.returncode
    except subprocess.TimeoutExpired:
        end(started)
        status = "cut off"
    lines = day.keep_log(started.name, started.log)
    found = json.loads(started.answer.read_text(encoding="utf-8")) if started.answer.exists() else {}
    if status and status != "cut off":
        found["said"] = errors_of(lines)
    day.record(case=started.name, ended=status, wall_s=round(time.monotonic() - began_s, 1), **found)


# --- starts of the program ----------------------------------------------------------------------------------


def start_program(day: Day, name: str, flags: Sequence[str]) -> Started:
    """The embedded training for eight steps, by ./train.sh with its benchmark or by train_lora.py alone."""
    rows = day.work / "few.jsonl"
    if not rows.exists():
        lines = (
            (ROOT / "sample" / "dataset" / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        )
        rows.write_text("".join(lines[::4]), encoding="utf-8")
    folder = day.work / f"start_{len(list(day.work.glob('start_*.txt')))}"
    by_script = name.startswith("./train.sh")
    words = ["./train.sh"] if by_script else [sys.executable, "train_lora.py", "--config"]
    words += ["configs/embedded.yaml", "--output_dir", str(folder), "--test_dataset", str(rows), *flags]
    words += ["--report_to", "none", "--max_steps", "8", "--grace_seconds", "10", "--eval_steps", "0.5"]
    words += ["--log_interval", "1", "--max_new_tokens", "48"]
    log = folder.with_suffix(".txt")
    return Started(name, start(words, log, {"HF_HUB_OFFLINE": "1"}), log)


def judge_start(day: Day, started: Started, ends_s: float) -> None:
    status: int | str
    try:
        status = started.process.wait(max(ends_s - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        end(started)
        status = "cut off"
    lines = day.keep_log(started.name, started.log)
    told = [
        line.strip()[:160] for line in lines if line.startswith(("step 8/", "Adapter with", "Model with"))
    ]
    day.record(start=started.name, ended=status, told=told, **({"said": errors_of(lines)} if status else {}))


# --- processes ----------------------------------------------------------------------------------------------


def start(words: Sequence[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that it ends with all that it started."""
    file: IO[bytes]
    with log.open("wb") as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | env,
            start_new_session=True,
            cwd=ROOT,
        )


def end(started: Started) -> None:
    if started.process.poll() is None:
        os.killpg(started.process.pid, signal.SIGKILL)
        started.process.wait()


def errors_of(lines: Sequence[str]) -> list[str]:
    return [line[:300] for line in lines if "Error" in line or "rror:" in line][-4:] or list(lines[-4:])


def gpu_of_driver() -> str:
    asked = "--query-gpu=name,memory.total,driver_version,power.limit"
    try:
        done = subprocess.run(["nvidia-smi", asked, "--format=csv,noheader"], capture_output=True, text=True)
    except FileNotFoundError:
        return "no GPU"
    return done.stdout.strip() or "no GPU"


def table(results: Path) -> str:
    """The trainings among the results, a line each."""
    found = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    rows = ["| setting | tokens/s | peak GiB | planned GiB | planned / peak |", "|---|---|---|---|---|"]
    for one in (one for one in found if "tokens_per_s" in one):
        figures = [
            f"{one['tokens_per_s']:,}",
            *(one.get(key, "-") for key in ("peak_gib", "planned_gib", "ratio")),
        ]
        rows.append(f"| {one['case']} | {' | '.join(map(str, figures))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
