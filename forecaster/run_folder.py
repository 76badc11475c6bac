"""What the files in a run's folder are called."""

from __future__ import annotations

# What a run's folder holds, besides tokenizer and chat template.
RUN_CONFIG, DATASET_FILE, LOG_HISTORY = "run_config.json", "dataset.json", "log_history.json"
TRAINER_STATE, DS_CONFIG, ROW_ORDER_FOLDER = "trainer_state.json", "ds_config.json", "row_order"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What makes a folder that of a walk: trainings at one cut after another.
WALK_FILE = "walk.json"
# Where its test rows were answered; within that, the validation rows by every checkpoint.
BENCHMARK, CHECKPOINTS = "benchmark", "checkpoints"
# What the validation weeks make of its probabilities; the answers to them, within the benchmark.
CALIBRATION, VALIDATION = "calibration.json", "validation"
# A fully fine-tuned model; one of many gigabytes is cut into shards, which the index names.
MODEL_CONFIG, MODEL_WEIGHTS = "config.json", "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
BEFORE_THE_FIRST_CHECKPOINT = {RUN_CONFIG, DATASET_FILE, ROW_ORDER_FOLDER, "wandb", "wandb_run.json"}
"""Records that a run leaves when it dies early: it may be started anew in their folder."""
