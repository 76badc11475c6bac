"""The rows that a finished training was made of."""

from __future__ import annotations

from datetime import date

from forecaster.data import sources
from forecaster.data.splits import Block
from forecaster.errors import ConfigurationError, Problem
from forecaster.models.finished import FinishedRun


def rows_of_training(run: FinishedRun) -> sources.Corpus:
    """The rows of a training; raises ConfigurationError when the data has changed since."""
    flags = run.flags
    first, *others = (
        date.fromisoformat(day) if (day := flags.get(name)) else None
        for name in ("test_from", "test_until", "train_from", "train_until")
    )
    test, remote = flags.get("test_dataset"), flags.get("from_remote", False)
    corpus = sources.load(
        sources.resolve(flags["dataset"], remote, "--dataset"),
        sources.resolve(test, remote, "--test_dataset") if test is not None else None,
        run.task,
        flags.get("validation_share", 0.0),
        Block(first, *others) if first else None,
    )
    if corpus.fingerprint != run.dataset_record["fingerprint_sha256"]:
        found = "holds other rows than when the adapter was trained."
        raise ConfigurationError(
            [Problem(flags["dataset"], found, "Put the former rows back, or train again.")]
        )
    return corpus
