"""What `--plan` prints: the bytes of the chosen setting part by part, and the settings beside it. Pure."""

from __future__ import annotations

from tabulate import tabulate

from forecaster.fit.hardware import HardwareChoice
from forecaster.fit.memory import host_bytes
from forecaster.fit.planner import GIB, FitPlan, Setting

ONE_LINE = "Plan: "


def one_line(plan: FitPlan) -> str:
    """The chosen setting with its largest parts."""
    assert plan.chosen
    needed = plan.chosen.bytes
    parts = sorted(needed.parts().items(), key=lambda item: -item[1])[:4]
    largest = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    return (
        f"{ONE_LINE}{plan.chosen.describe()}: {needed.total / GIB:.1f} of {plan.request.gpu_bytes / GIB:.1f} "
        f"GiB on each GPU ({largest}, ...); {plan.chosen.step_s:.1f} s a step if every row is full."
    )


def head(printed: str) -> str:
    """The choice, and the plan if there is one, of what train_lora.py prints before a run."""
    lines = printed.split("\n")
    return "\n".join(lines[: 2 if lines[1:] and lines[1].startswith(ONE_LINE) else 1])


def render(title: str, choice: HardwareChoice) -> str:
    """The whole answer to `--plan`."""
    plan = choice.plan
    assert plan and plan.chosen
    lines = [f"{title}. Chose:", *(f"- {reason}" for reason in choice.reasons), ""]
    if choice.quantization == "4bit":
        lines[-1:] = ["WARNING: 4-bit weights change the numerics.", ""]
    lines += [_bytes_table(plan), "", _settings_table(plan), ""]
    lines.append(
        f"GiB on each GPU, of {plan.share:.0%} x {plan.request.gpu_bytes / GIB:.1f} that can be used; "
        "seconds of an optimizer step in which every row has the full length, predicted."
    )
    if "update" in plan.chosen.bytes.parts():
        lines.append(
            "update: fp32 copies of gradients while the optimizer steps, more than activations and logits "
            "take before."
        )
    return "\n".join(lines)


def _bytes_table(plan: FitPlan) -> str:
    assert plan.chosen
    rows = [[name, f"{size / GIB:.2f}"] for name, size in plan.chosen.bytes.parts().items()]
    rows.append(["total", f"{plan.chosen.bytes.total / GIB:.2f}"])
    if on_host := host_bytes(plan.request.shape, plan.chosen.layout):
        rows.append(["in CPU memory", f"{on_host / GIB:.2f}"])
    return str(tabulate(rows, headers=["on each GPU", "GiB"], disable_numparse=True))


def _settings_table(plan: FitPlan) -> str:
    """Of settings that differ by the micro batch only: the fastest that fits, else the smallest."""
    kinds: dict[tuple[bool, bool, int, bool], Setting] = {}
    for setting in plan.considered:  # fastest first
        layout = setting.layout
        kind = (layout.four_bit, layout.offload, layout.zero_stage, layout.checkpointing)
        best = kinds.setdefault(kind, setting)
        if not plan.fits(best) and (plan.fits(setting) or setting.bytes.total < best.bytes.total):
            kinds[kind] = setting
    rows = [
        [
            "->" if setting == plan.chosen else "",
            setting.describe(),
            f"{setting.bytes.total / GIB:.1f}",
            "yes" if plan.fits(setting) else "no",
            f"{setting.step_s:.2f}",
        ]
        for _, setting in sorted(kinds.items())
    ]
    headers = ["", "setting", "GiB", "fits", "s a step"]
    return str(tabulate(rows, headers=headers, disable_numparse=True))
