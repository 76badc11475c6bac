"""The card of what was trained."""

from __future__ import annotations

from collections.abc import Mapping

from forecaster.training.run import PART_NAMES, Run


def model_card(
    run: Run, template: str, rows_by_part: Mapping[str, int], train_loss: float, test_loss: float | None
) -> str:
    """The README of a run's folder, in the hub's form.

    Args:
        template: name of the chat template.
        rows_by_part: training, validation and test rows, by part.
        train_loss, test_loss: token means; no test loss where it was not measured.
    """
    flags, choice = run.config, run.choice
    weights = "4-bit NF4" if choice.quantization == "4bit" else "unquantised"
    *others, last = (f"{count} {PART_NAMES[name]}" for name, count in rows_by_part.items())
    rows = f"{', '.join(others)} and {last}"
    test_line = f"{test_loss:.4f}" if test_loss is not None else "not measured"
    what, tuned = run.tuner.result, run.tuner.describe(flags.tuner_settings)
    return f"""---
base_model: {run.model.location}
library_name: {"peft" if run.tuner.saves_adapter else "transformers"}
tags: [finance, forecasting, {run.tuner.name}]
---
# {flags.run_name}

{what} that answers a weekly prompt about one stock with positive developments, potential concerns,
a predicted move and an analysis. Not financial advice.

| | |
|---|---|
| base model | {run.model.location} |
| data | {flags.dataset}, {rows} rows |
| tuner | {run.tuner.name}: {tuned} |
| optimisation | rate {flags.learning_rate:g}, {flags.scheduler}, {flags.num_epochs:g} epochs |
| seed | {flags.seed} |
| numerics | {choice.precision}, base weights {weights} |
| chat template | {template}, saved as chat_template.jinja; evaluation has to use this file |
| loss | {train_loss:.4f} mean over training, {test_line} on the test rows (answer tokens) |

`run_config.json` has every setting and version, `dataset.json` what became of every row.
"""
