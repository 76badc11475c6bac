"""Pictures of a run: the only importer of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from forecaster.evaluation.baselines import Baseline
from forecaster.evaluation.metrics import Metrics


def draw_run(
    path: Path,
    log_history: Sequence[Mapping[str, Any]],
    models: Mapping[str, Metrics],
    baselines: Sequence[Baseline],
) -> None:
    """Loss over steps beside binary accuracy against the baselines; readable in black and white."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    train = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    test = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    if train:
        left.plot(*zip(*train, strict=True), color="0.45", linewidth=1.5, label="training")
    if test:
        left.plot(*zip(*test, strict=True), color="black", marker="o", linestyle="--", label="test")
    left.set(xlabel="optimizer step", ylabel="loss per answer token (nats)", title="Loss", ylim=(0, None))
    if train or test:
        left.legend(frameon=False)

    bars: list[tuple[str, float | None, str]] = [
        (f"{name} ({m.valid_count}/{m.rows} readable)", m.bin_acc, "0.25") for name, m in models.items()
    ]
    bars += [(b.name, b.bin_acc, "0.75") for b in baselines if b.bin_acc is not None]
    for place, (_, value, shade) in enumerate(reversed(bars)):
        right.barh(place, value or 0, color=shade)
        text = "no readable answer" if value is None else f"{value:.3f}"
        on_white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        right.text((value or 0) + 0.015, place, text, va="center", bbox=on_white)
    right.set_yticks(range(len(bars)), [name for name, _, _ in reversed(bars)])
    right.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    right.set(xlim=(0, 1), xlabel="share of right directions", title="Binary accuracy")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
