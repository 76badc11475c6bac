"""Pack what a bare GPU machine without network lacks (Python 3.12, torch 2.11).

    python bench/gpu/prepare.py [--data FOLDER]

Wheels go into .gpu_wheels/. Rows as long as the published ones are in Llama's tokens go into
bench/gpu/published_rows.jsonl, if FOLDER/forecaster_dow30/train_244.jsonl is there. Copy the repository with
both, and start `bash bench/gpu/run.sh` there.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / ".gpu_wheels"
ROWS = Path(__file__).with_name("published_rows.jsonl")
ROWS_COUNT = 40
PINNED = (
    *("transformers", "trl", "peft", "datasets", "bitsandbytes", "liger-kernel", "tenacity", "python-dotenv"),
    *(
        "nltk",
        "wandb",
        "openai",
        "exchange_calendars",
        "TA-Lib",
    ),
    "nvidia-ml-py",
)
"""Of the requirements: what such a machine lacks, or has in another version."""
NEEDED_BY_THOSE = (
    *("hjson", "pydantic==2.14.4", "pydantic-core==2.50.5", "annotated-types", "typing-inspection"),
    *("dill==0.4.1", "multiprocess==0.70.19", "defusedxml", "platformdirs", "cwevals==0.0.1b1"),
    *("opentelemetry-api==1.45.2", "opentelemetry-sdk==1.45.2", "opentelemetry-proto==1.45.2"),
    *("opentelemetry-exporter-otlp-proto-http==1.45.2", "opentelemetry-exporter-otlp-proto-common==1.45.2"),
    *("opentelemetry-exporter-http-transport==0.66b2", "opentelemetry-exporter-otlp-common==0.66b2"),
    *("opentelemetry-semantic-conventions==0.66b2", "googleapis-common-protos", "jiter", "sniffio", "distro"),
    *("httpx2==2.16.2", "httpcore2==2.16.2", "truststore", "pyluach", "korean-lunar-calendar", "tzdata"),
)
BUILT = ("rouge-score", "deepspeed")
"""There are no wheels of these; DeepSpeed's is pure Python where no operator is built ahead."""
LEFT_OUT = {"bitsandbytes": r"\.so$(?<!_cuda130\.so)(?<!_cpu\.so)", "wandb": r"^wandb/bin/"}
"""63 MB: libraries for other versions of CUDA, and W&B's own server (so runs need `--report_to none`)."""
KEPT_OF_PROMPT, KEPT_OF_ANSWER = 0.56, 0.52
"""Share of a text after which the sample's tokenizer makes as many tokens of it as Llama's does of all."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FORECASTER_REAL_DATA"))
    args = parser.parse_args(argv)
    if args.data:
        source = Path(args.data) / "forecaster_dow30" / "train_244.jsonl"
        lines = source.read_text(encoding="utf-8").splitlines()[:ROWS_COUNT]
        ROWS.write_text(
            "".join(json.dumps(shortened(json.loads(line))) + "\n" for line in lines), encoding="utf-8"
        )
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir()
    with tempfile.TemporaryDirectory() as raw:
        download(Path(raw), [pinned(name) for name in PINNED])
        download(Path(raw), NEEDED_BY_THOSE)
        pip("wheel", "--no-deps", "-w", raw, *(pinned(name) for name in BUILT))
        for wheel in Path(raw).glob("*.whl"):
            slim(wheel, WHEELS / wheel.name, LEFT_OUT.get(wheel.name.split("-")[0]))
    size_mb = sum(wheel.stat().st_size for wheel in WHEELS.iterdir()) / 1e6
    print(f"{size_mb:.1f} MB of wheels in {WHEELS}. On the GPU machine: bash bench/gpu/run.sh")
    return 0


def pinned(name: str) -> str:
    """`name==version` as a requirements file says it."""
    for file in ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt"):
        found = re.search(rf"^{name}==\S+", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found.group()
    raise LookupError(f"no requirements file pins {name}")


def download(folder: Path, requirements: Sequence[str]) -> None:
    versions = ("2_28", "2_27", "2_24", "2_17", "2014", "1")
    platforms = (f"manylinux{'_' * ('_' in version)}{version}_x86_64" for version in versions)
    flags = [word for platform in platforms for word in ("--platform", platform)]
    only = ("--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp")
    pip("download", *only, *flags, "-d", str(folder), *requirements)


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", words[0], "-q", *words[1:]]
    subprocess.run(command, check=True, env=os.environ | {"DS_BUILD_OPS": "0"})


def slim(source: Path, target: Path, unneeded: str | None) -> None:
    """Copy a wheel without the files that match, and with a RECORD of those that are left."""
    if unneeded is None:
        shutil.copy(source, target)
        return
    lines = []
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        record = next(name for name in old.namelist() if name.endswith(".dist-info/RECORD"))
        for name in old.namelist():
            if name == record or re.search(unneeded, name):
                continue
            content = old.read(name)
            new.writestr(old.getinfo(name), content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}")
        new.writestr(record, "\n".join([*lines, f"{record},,", ""]))


def shortened(row: dict[str, str]) -> dict[str, str]:
    """A published row with cut summaries and answer: as long in the sample's tokens as it was in Llama's."""
    prompt, answer = row["prompt"], row["answer"]
    in_summaries = sum(map(len, re.findall(r"\[Summary\]:(.*)", prompt)))
    spare = in_summaries - (1 - KEPT_OF_PROMPT) * len(prompt)
    share = min(max(spare / max(in_summaries, 1), 0.05), 1)
    prompt = re.sub(r"(\[Summary\]:)(.*)", lambda m: m[1] + m[2][: int(share * len(m[2]))], prompt)
    return row | {"prompt": prompt, "answer": answer[: int(KEPT_OF_ANSWER * len(answer))]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
