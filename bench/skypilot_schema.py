"""Check cloud/skypilot.yaml with the real `sky` package, for one T4, one A100, 8 GPUs and two nodes.

    python bench/skypilot_schema.py

Installs skypilot, 460 MB with all that it needs, into an environment of its own in a temporary folder (about
a minute), reads the task file as `sky jobs launch` does, and prints OK. It needs no cloud account: machines
and prices are not looked up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKYPILOT = "skypilot==0.14.1"
CHECK = """
import sys
import sky

path = sys.argv[1]
keys = [("HF_TOKEN", "none"), ("WANDB_API_KEY", "none")]
for gpus, count, nodes in (("T4", 1, 1), ("A100", 1, 1), ("A100", 8, 1), ("A100", 8, 2)):
    config = sky.utils.yaml_utils.read_yaml(path)
    task = sky.Task.from_yaml_config(config, [("BUCKET", "forecaster-check")], keys)
    task.set_resources_override({"accelerators": {gpus: count}})
    task.num_nodes = nodes
    with sky.Dag() as dag:
        dag.add(task)
    (resources,) = dag.tasks[0].resources
    assert resources.use_spot and resources.accelerators == {gpus: count}, resources
    print(f"OK: {nodes} x {resources}")
try:
    sky.Task.from_yaml(path)
except ValueError as error:
    assert "BUCKET" in str(error), error
    print("OK: without a bucket it is refused")
sys.exit(0)
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="skypilot-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", SKYPILOT], check=True)
        # A home of its own: sky writes its state there.
        env = {"HOME": folder, "PATH": "/usr/bin:/bin", "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
        command = [python, "-c", CHECK, str(ROOT / "cloud" / "skypilot.yaml")]
        return subprocess.run(command, env=env, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
