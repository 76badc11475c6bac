"""The tasks that there are, by name."""

from __future__ import annotations

from forecaster.tasks.base import Task
from forecaster.tasks.weekly import WEEKLY

DEFAULT_TASK = WEEKLY.name
TASKS: dict[str, Task] = {WEEKLY.name: WEEKLY}
