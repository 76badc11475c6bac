"""A finished training run, as its folder describes it. Loads no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, Problem
from forecaster.hashes import sha256_of
from forecaster.modeling import registry
from forecaster.modeling.run import ADAPTER_CONFIG, ADAPTER_WEIGHTS, DATASET_FILE, LOG_HISTORY, RUN_CONFIG

_NEEDED_FLAGS = ("dataset", "max_length", "max_new_tokens", "lora_r", "run_name", "trust_remote_code")
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class FinishedRun:
    """An adapter, and what its training recorded."""

    folder: Path
    base: registry.BaseModel
    record: Mapping[str, Any]
    """run_config.json: flags, what they resolved to, versions."""
    dataset_record: Mapping[str, Any]

    @property
    def flags(self) -> Mapping[str, Any]:
        flags: Mapping[str, Any] = self.record["flags"]
        return flags

    @property
    def resolved(self) -> Mapping[str, Any]:
        resolved: Mapping[str, Any] = self.record["resolved"]
        return resolved

    @property
    def trained_until(self) -> date | None:
        """Last day of the training weeks; None where an older training did not write it down."""
        day = self.dataset_record.get("trained_until")
        return date.fromisoformat(day) if day else None

    @property
    def log_history(self) -> Path:
        return self.folder / LOG_HISTORY

    def adapter_sha256(self) -> str:
        return sha256_of(self.folder / ADAPTER_WEIGHTS)


def read_finished(folder: Path) -> FinishedRun:
    """Raises ConfigurationError when the folder is not a finished run with its chat template."""
    names = (RUN_CONFIG, DATASET_FILE, LOG_HISTORY, ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    missing = [name for name in names if not (folder / name).is_file()]
    if folder.is_dir() and not missing and not _has_template(folder):
        missing = [_TEMPLATES[0]]
    if missing:
        found = f"{folder} lacks {', '.join(missing)}." if folder.is_dir() else f"{folder} is no folder."
        raise ConfigurationError(
            [Problem("--adapter", found, "Give the output folder of a training that has ended.")]
        )
    try:
        record, data, _ = [json.loads((folder / name).read_text(encoding="utf-8")) for name in names[:3]]
        base = registry.resolve(record["resolved"]["base_model"])
        _ = record["resolved"]["precision"], record["resolved"]["quantization"], data["fingerprint_sha256"]
        if not (isinstance(record["flags"], dict) and isinstance(data["training_labels"], dict)):
            raise TypeError("no JSON object")
        _ = [record["flags"][name] for name in _NEEDED_FLAGS]
        date.fromisoformat(data.get("trained_until", "2000-01-01"))
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        found = f"{folder} holds a damaged {', '.join(names[:3])} ({type(error).__name__})."
        way_out = "Take a whole copy, or train again."
        raise ConfigurationError([Problem("--adapter", found, way_out)]) from error
    if isinstance(base, Problem):
        raise ConfigurationError([base])
    return FinishedRun(folder, base, record, data)


def _has_template(folder: Path) -> bool:
    """Saved beside the tokenizer, or inside its configuration."""
    if any((folder / name).is_file() for name in _TEMPLATES):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
