"""Exceptions that carry their fields, so that callers can show, count or test them without reading text."""

from __future__ import annotations

from dataclasses import dataclass

SAVED_UNFINISHED = 75
"""Exit status of a training that was stopped and can go on: EX_TEMPFAIL of sysexits.h."""
WOULD_FAIL_AGAIN = 70
"""Exit status of a training that started again as it is would fail again: EX_SOFTWARE of sysexits.h."""


@dataclass(frozen=True)
class Problem:
    """One thing the user has to mend before a run can start."""

    where: str
    """The flag, file or row concerned, for example `--base_model`."""
    found: str
    """What was found there."""
    way_out: str
    """What is allowed, and what to do."""

    def __str__(self) -> str:
        return f"{self.where}: {self.found} {self.way_out}"


class ConfigurationError(Exception):
    """Everything wrong with a configuration, found together; entry points leave with status 2."""

    exit_status = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = list(dict.fromkeys(problems))  # two checks may come upon the same
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[list[Problem]]]:
        """So that it crosses from one process to another with its fields."""
        return type(self), (self.problems,)


class RunOutOfMemoryError(Exception):
    """A run that ran out of GPU memory: what was planned and measured, and how to go on."""

    exit_status = WOULD_FAIL_AGAIN


class AdapterNotTrainedError(Exception):
    """A saved adapter, or fully fine-tuned model, that holds empty tensors or was never updated."""

    exit_status = WOULD_FAIL_AGAIN

    def __init__(self, path: str, tensor: str, reason: str) -> None:
        self.path, self.tensor, self.reason = path, tensor, reason
        super().__init__(
            f"What was saved in {path} is not usable: {tensor} {reason}. Check that the loss fell, and that "
            "every rank took part in saving (ZeRO-3 gathers the weights on save)."
        )

    def __reduce__(self) -> tuple[type[AdapterNotTrainedError], tuple[str, str, str]]:
        return type(self), (self.path, self.tensor, self.reason)


class TrainingStoppedError(Exception):
    """A training that was asked to stop, and did, with a complete checkpoint."""

    exit_status = SAVED_UNFINISHED


class TrainingFailedError(Exception):
    """A training that cannot go on as it is; the text says what was found, and what to change."""

    exit_status = WOULD_FAIL_AGAIN


class VendorError(Exception):
    """A data vendor did not give what was asked; the text never holds a key.

    Args:
        vendor: who was asked, such as `Finnhub`.
        found: one sentence on what came back.
    """

    exit_status = 1

    def __init__(self, vendor: str, found: str) -> None:
        self.vendor, self.found = vendor, found
        super().__init__(f"{vendor}: {found}")


class KeyRefusedError(VendorError):
    """The key is missing, empty or not accepted: every further call would fail as well."""

    exit_status = ConfigurationError.exit_status


class NoAccessError(VendorError):
    """The endpoint, or this symbol of it, is not part of the user's plan."""


class UnknownSymbolError(VendorError):
    """The vendor does not know the symbol, or no longer serves it."""


class UnreachableError(VendorError):
    """No usable answer after all retries: the network, the vendor's servers, or a rate limit."""
