"""Fine-tune a chat model into a weekly stock forecaster with LoRA, or as --tuner says.

The embedded default, on any machine:

    python train_lora.py --config configs/embedded.yaml

A rented GPU:

    deepspeed --include localhost:0 train_lora.py --config configs/llama3.1-8b-a100.yaml

Every problem of a configuration is reported before anything heavy is loaded, with exit status 2.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster import tracking
from forecaster.data import sources
from forecaster.errors import (
    SAVED_UNFINISHED,
    WOULD_FAIL_AGAIN,
    AdapterNotTrainedError,
    ConfigurationError,
    Problem,
    RunOutOfMemoryError,
    TrainingFailedError,
    TrainingStoppedError,
)
from forecaster.exits import report_problems
from forecaster.files import write_json
from forecaster.fit import hardware, plan_tables
from forecaster.fit.gpus import (
    GPU_SYNTAX,
    Gpu,
    GpuSelectionError,
    built_for,
    describe,
    detect_gpus,
    no_gpu_reason,
    parse_gpus,
    select_gpus,
    torch_mismatch,
)
from forecaster.flags import flag_names
from forecaster.models import registry
from forecaster.models.tuners import DEFAULT_TUNER
from forecaster.processes import say
from forecaster.provenance import versions
from forecaster.run_folder import DATASET_FILE, LOG_HISTORY, RUN_CONFIG
from forecaster.settings import Settings, calm_openmp, load_settings, use_gpu
from forecaster.training import train_config
from forecaster.training.run import Run, RunFolder, find_run_folder
from forecaster.training.survival import checkpoints, stopping

if TYPE_CHECKING:
    from forecaster.training.tokenising import RowReport


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report_problems("train_lora.py", error)
    calm_openmp()
    try:
        flags = train_config.parse_flags(argv)
        if flags.plan:
            print(plan_of(flags, settings, flag_names(argv)))
            return 0
        run, train_sources, test_sources = resolve(flags, settings, flag_names(argv))
        if settings.rank == 0:
            print_plan(run, settings)
        if flags.dry_run:
            if all(source.kind != "hub" for source in [*train_sources, *(test_sources or [])]):
                print_counts(sources.load(train_sources, test_sources, flags.validation_share))
            return 0
        watch = stopping.StopWatch(
            flags.grace_seconds, settings.launched, settings.supervisor_pid, is_main=settings.rank == 0
        )
        watch.start()
        train(run, settings, watch, train_sources, test_sources)
    except ConfigurationError as error:
        return report_problems("train_lora.py", error) if settings.rank == 0 else error.exit_status
    except TrainingStoppedError as stopped:
        if settings.rank == 0:
            say(f"\n{stopped} --resume goes on.")
            tracking.finish()
        return SAVED_UNFINISHED
    except (AdapterNotTrainedError, TrainingFailedError) as error:
        if settings.rank == 0:
            say(f"\n{error}", sys.stderr)
        return WOULD_FAIL_AGAIN
    except RunOutOfMemoryError as error:  # of whichever rank
        say(f"\n{error}", sys.stderr)
        return WOULD_FAIL_AGAIN
    return 0


# --- resolve and check: nothing heavy is imported, downloaded or written ------------------------------------


def plan_of(flags: train_config.TrainConfig, settings: Settings, given: Collection[str]) -> str:
    """The tables of --plan, from the model's configuration alone.

    Raises:
        ConfigurationError: nothing fits, or what would have to is not known.
    """
    problems = train_config.find_value_problems(flags)
    model = registry.resolve(flags.base_model, weights_needed=False)
    if isinstance(model, Problem):
        problems.append(model)
    elif model.shape is None:
        found = f"{flags.base_model}'s sizes are not known here."
        way_out = "Give an alias, or a folder with the config.json of a Llama, Qwen2 or Mistral model."
        problems.append(Problem("--base_model", found, way_out))
    else:
        problems += train_config.find_model_problems(flags, model)
    gpus = find_gpus(flags, settings, problems)
    if gpus == ():
        found = f"finds no GPU{no_gpu_reason()}."
        problems.append(Problem("--plan", found, f"Name one: --gpu with {GPU_SYNTAX}."))
    if problems or isinstance(model, Problem) or not gpus:
        raise ConfigurationError(problems)
    asked = train_config.asked_of_hardware(flags, given)
    choice = hardware.choose(gpus, ranks_of(flags, settings), shape=model.shape, asked=asked)
    if isinstance(choice, list):
        raise ConfigurationError(choice)
    return plan_tables.render(f"{flags.base_model} on {describe(gpus)}", choice)


def ranks_of(flags: train_config.TrainConfig, settings: Settings) -> int:
    """Processes of the run: as the launcher says, or as many as --gpu names."""
    named = parse_gpus(flags.gpu) if flags.gpu else None
    return named[0] if named and named[0] else settings.world_size


def resolve(
    flags: train_config.TrainConfig, settings: Settings, given: Collection[str]
) -> tuple[Run, list[sources.Source], list[sources.Source] | None]:
    """Everything that can be known before loading.

    Args:
        given: Names of the flags on the command line.

    Raises:
        ConfigurationError: with every problem found, not only the first.
    """
    problems = train_config.find_value_problems(flags) + (
        tracking.find_problems(settings) if flags.report_to == "wandb" else []
    )

    def located(specs: str | None, flag: str) -> list[sources.Source]:
        try:
            return sources.resolve(specs, flags.from_remote, flag) if specs is not None else []
        except ConfigurationError as error:
            problems.extend(error.problems)
            return []

    train_sources = located(flags.dataset, "--dataset")
    test_sources = located(flags.test_dataset, "--test_dataset") if flags.test_dataset is not None else None

    model = registry.resolve(flags.base_model)
    if isinstance(model, Problem):
        problems.append(model)
        model = registry.BaseModel(flags.base_model, is_local=False)
    else:
        problems += train_config.find_access_problems(model, settings)
        problems += train_config.find_model_problems(flags, model)

    gpus, ranks = find_gpus(flags, settings, problems), ranks_of(flags, settings)
    choice: hardware.HardwareChoice | list[Problem] = []
    if gpus is not None:
        choice = hardware.choose(
            gpus,
            ranks,
            shape=model.shape,
            asked=train_config.asked_of_hardware(flags, given),
            under_deepspeed=settings.launched or ranks > 1,  # of several ranks, each has a launcher
        )
    if isinstance(choice, list):
        problems += choice
    elif not flags.gpu:
        problems += train_config.find_quantization_problems(choice.quantization)

    folder = find_run_folder(flags)
    if isinstance(folder, Problem):
        problems.append(folder)
        folder = RunFolder(train_config.OUTPUT_FOLDER)
    if not flags.gpu:
        problems += train_config.find_disk_problems(flags, model, folder.path)
    if problems or isinstance(choice, list) or gpus is None:
        raise ConfigurationError(problems)

    return (
        Run(flags, model, choice, gpus, folder.path, folder.resume_from),
        train_sources,
        test_sources,
    )


def find_gpus(
    flags: train_config.TrainConfig, settings: Settings, problems: list[Problem]
) -> tuple[Gpu, ...] | None:
    """The GPUs of this run, or those that `--gpu` names; adds to `problems`.

    Returns:
        None where they are not known, because `--gpu` or CUDA_VISIBLE_DEVICES names none that is.
    """
    if flags.gpu is not None:
        named = parse_gpus(flags.gpu)
        return (named[1],) * ranks_of(flags, settings) if named else None
    try:
        gpus = select_gpus(detect_gpus(), settings.cuda_visible_devices)
    except GpuSelectionError as error:
        problems.append(Problem("CUDA_VISIBLE_DEVICES", f"{error}.", "Name GPUs that `nvidia-smi -L` lists."))
        return None
    if gpus and not settings.launched:
        # Without a launcher there is one process, and torch would spread it over every GPU that it sees.
        gpus = gpus[:1]
        use_gpu(gpus[0].index)
    if gpus and (mismatch := find_torch_mismatch(gpus)):
        problems.append(mismatch)
    return gpus


def find_torch_mismatch(gpus: Sequence[Gpu]) -> Problem | None:
    import torch  # seconds to import, and of use only where there is a GPU to see

    if torch.cuda.is_available() and all(
        built_for(torch.cuda.get_arch_list(), gpu.compute_capability) for gpu in gpus
    ):
        return None
    return torch_mismatch(gpus, torch.__version__, torch.version.cuda)


# --- print --------------------------------------------------------------------------------------------------


def print_plan(run: Run, settings: Settings) -> None:
    flags, choice = run.config, run.choice
    found = ("Asked about " if flags.gpu else "Found ") + describe(run.gpus)
    ranks = ranks_of(flags, settings)
    print(f"{found}; {ranks} rank(s). Chose {'; '.join(choice.reasons)}.")
    if choice.plan and choice.plan.chosen:
        print(plan_tables.one_line(choice.plan))
    if choice.quantization == "4bit" and train_config.asked_quantization(flags) == "auto":
        print(
            "WARNING: 4-bit weights change the numerics; give --quantization 4bit to say that this is meant."
        )
    if run.tuner.note:
        print(run.tuner.note)
    if note := train_config.resolve_scheduler(flags).note:
        print(note)
    if flags.report_to == "wandb":
        print(tracking.resolve_mode(settings)[1])
    trainable = ""
    if run.model.shape:
        trained, total = run.tuner.parameter_counts(run.model.shape, flags.tuner_settings)
        trainable = f" ({trained:,} trainable of {total:,} parameters)"
    print(f"Base model {run.model.location}, tuner {run.tuner.name}{trainable}.")
    at_once = choice.micro_batch_size or flags.batch_size
    accumulated = choice.gradient_accumulation_steps or flags.gradient_accumulation_steps
    print(
        f"{at_once * accumulated * ranks} rows per optimizer step: {at_once} x {accumulated} accumulated x "
        f"{ranks} rank(s). Output folder {run.output_dir}."
    )
    if run.resume_from:
        print(f"Going on from {run.resume_from}.")
        for passed_over in checkpoints.newest_complete(run.output_dir)[1]:
            print(f"Passed over {passed_over.folder}: {passed_over.reason}.")
    print(json.dumps(train_config.as_flags(flags), indent=1), flush=True)


def print_counts(corpus: sources.Corpus) -> None:
    counts = corpus.counts
    print(
        f"Rows: {counts.train_read} training and {counts.test_read} test rows read; dropped because a test "
        f"week would not come after its symbol's training: {counts.train_dropped_out_of_order} training, "
        f"{counts.test_dropped_out_of_order} test; {counts.train_after_repeats} training rows after repeats, "
        f"{len(corpus.test)} test rows.",
        flush=True,
    )
    if corpus.validation is not None:
        first_day = min(corpus.validation["period"])[:10]
        print(
            f"For validation: {counts.validation_held_out} of the training rows, from {first_day} on; "
            f"dropped because they would not come after their symbol's training: "
            f"{counts.validation_dropped_out_of_order}; {len(corpus.validation)} validation rows.",
            flush=True,
        )
    for name, rows in counts.unused_splits.items():
        print(f"Not used: the {rows} rows of {name}.", flush=True)


# --- run ----------------------------------------------------------------------------------------------------

PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def train(
    run: Run,
    settings: Settings,
    watch: stopping.StopWatch,
    train_sources: Sequence[sources.Source],
    test_sources: Sequence[sources.Source] | None,
) -> None:
    """Data, model, run, save."""
    corpus = sources.load(train_sources, test_sources, run.config.validation_share)
    if run.resume_from:
        check_same_run(run, corpus, settings.world_size)
    grouped = rows_per_group(run)  # before the record of the former session is written over

    # torch, transformers' models, trl and deepspeed take ten seconds to import: only after everything was
    # checked.
    from forecaster.models import templates, weights
    from forecaster.training import fine_tuning

    args = fine_tuning.sft_config(run)
    run = replace(run, output_dir=fine_tuning.agree_on_output_dir(args, run.output_dir, run.resume_from))
    is_main = args.process_index == 0

    tokenizer, template = templates.load_tokenizer(run.model, run.config.trust_remote_code)
    parts = fine_tuning.tokenise_parts(args, tokenizer, run.config.max_length, **corpus.parts)
    reports = {name: report for name, (_, report) in parts.items()}
    if is_main:
        print_counts(corpus)
        for name, report in reports.items():
            print(report.summary(PART_NAMES[name].capitalize()), flush=True)
    check_rows_fit(run.config, reports)

    model = fine_tuning.build_model(run)
    effective_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    record = fine_tuning.run_record(run, template, effective_batch, versions(), grouped)
    data_record = fine_tuning.dataset_record(
        corpus.fingerprint,
        corpus.counts,
        corpus.train["label"],
        reports,
        sources.recipe(train_sources),
        max(period[-10:] for period in corpus.train["period"]),
    )
    if is_main:
        prepare_folder(run.output_dir)
        write_json(run.output_dir / RUN_CONFIG, record)
        write_json(run.output_dir / DATASET_FILE, data_record)
        if run.config.report_to == "wandb":
            tracking.start(run.output_dir, run.config.run_name, record, settings)
    # A checkpoint that is chosen by its loss on some rows cannot be measured on the same rows.
    evaluated: fine_tuning.EvaluatedPart = "test" if corpus.validation is None else "validation"
    trainer = fine_tuning.make_trainer(
        run, args, model, tokenizer, parts["train"][0], parts[evaluated][0], evaluated, watch, grouped
    )
    trainable, total = weights.count_parameters(model)
    if is_main:
        print(f"Trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%}).", flush=True)
        print(f"{fine_tuning.attention_of(run).reason}.", flush=True)

    result = fine_tuning.run_training(run, trainer)

    final_loss = None
    if run.config.evaluation_strategy != "no":
        final_loss = fine_tuning.final_test_loss(trainer, parts["test"][0], evaluated)
    card = model_card(run, template, corpus, result.training_loss, final_loss)
    tensors = fine_tuning.save_run(run, trainer, tokenizer, record, data_record, card)
    if is_main:
        what = "Adapter" if run.tuner.saves_adapter else "Model"
        print(f"{what} with {tensors} tensors, trained: {run.output_dir}", flush=True)
        tracking.finish()


def prepare_folder(output_dir: Path) -> None:
    """Make the folder of a run that begins or goes on, without what a killed one left half done."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for folder in checkpoints.remove_unfinished(output_dir):
        print(f"Removed {folder}: a save that was not finished.", flush=True)
    (output_dir / LOG_HISTORY).unlink(missing_ok=True)  # it says that a run has ended


def check_rows_fit(flags: train_config.TrainConfig, reports: Mapping[str, RowReport]) -> None:
    """Raises ConfigurationError when a part has no row that is short enough."""
    if all(report.kept for report in reports.values()):
        return
    *others, last = (f"{report.kept} {PART_NAMES[name]}" for name, report in reports.items())
    would_do = max(report.max_length_that_would_do for report in reports.values())
    found = f"is {flags.max_length}, which leaves {', '.join(others)} and {last} rows."
    raise ConfigurationError([Problem("--max_length", found, f"--max_length {would_do} would keep all.")])


MAY_CHANGE_ON_RESUME = frozenset(
    {"config", "run_name", "output_dir", "resume", "dry_run", "gpu", "local_rank", "report_to", "num_workers"}
    | {"plan", "fit", "batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}
    | {"dataset", "test_dataset", "from_remote", "trust_remote_code", "ds_config", "max_new_tokens"}
    | {"num_epochs", "max_steps", "evaluation_strategy", "eval_steps", "log_interval", "save_total_limit"}
    | {"grace_seconds", "max_skipped_steps", "keep_best"}
)


def rows_per_group(run: Run) -> int:
    """How many rows of like length stay together in the order of an epoch: the micro batch that the run began
    with. One that goes on with another, because memory ran out, keeps its order."""
    if not run.resume_from:
        return run.micro_batch_size
    resolved = json.loads((run.output_dir / RUN_CONFIG).read_text())["resolved"]
    return int(resolved.get("rows_per_group", run.micro_batch_size))


def check_same_run(run: Run, corpus: sources.Corpus, ranks: int) -> None:
    """A resumed run has to see the rows and settings that it began with, on as many ranks, and must not have
    ended."""
    record = json.loads((run.output_dir / RUN_CONFIG).read_text())
    known = json.loads((run.output_dir / DATASET_FILE).read_text())
    # Runs older than these flags held nothing out, and had LoRA.
    older = {"validation_share": 0.0, "tuner": DEFAULT_TUNER}
    before, now = older | record["flags"], train_config.as_flags(run.config)
    problems = [
        Problem(f"--{name}", f"is {now[name]}; the run began with {before[name]}.", "Give the former value.")
        for name in sorted(before.keys() & now.keys() - MAY_CHANGE_ON_RESUME)
        if before[name] != now[name]
    ]
    rows = ("batch_size", "gradient_accumulation_steps")
    if math.prod(before[name] for name in rows) != math.prod(now[name] for name in rows):
        was, given = (" x ".join(str(flags[name]) for name in rows) for flags in (before, now))
        problems.append(
            Problem(
                "--batch_size",
                f"x --gradient_accumulation_steps is {given}; the run began with {was}.",
                "Give flags with the same product, so that a step has as many rows.",
            )
        )
    same_parts = before["validation_share"] == now["validation_share"]
    if same_parts and known["fingerprint_sha256"] != corpus.fingerprint:
        problems.append(
            Problem(
                "--resume",
                f"the rows differ from those that {run.output_dir} was started with.",
                "Give the same --dataset and --test_dataset, or start anew without --resume.",
            )
        )
    problems += find_changed_choices(run, record["resolved"])
    # ZeRO's shards would not fit another number of ranks.
    saved = checkpoints.ranks_of(run.resume_from) if run.resume_from else ranks
    if saved != ranks:
        found = f"goes on from {run.resume_from}, which {saved} rank(s) saved; this run has {ranks}."
        way_out = f"Use {saved} GPU(s) (--gpus), or start anew without --resume."
        problems.append(Problem("--resume", found, way_out))
    length = ("num_epochs", "max_steps")
    if (run.output_dir / LOG_HISTORY).exists() and all(before[name] == now[name] for name in length):
        problems.append(
            Problem(
                "--resume",
                f"{run.output_dir} has ended.",
                "Give more --num_epochs to train on, or run benchmark.py on it.",
            )
        )
    if problems:
        raise ConfigurationError(problems)


def find_changed_choices(run: Run, began: Mapping[str, Any]) -> list[Problem]:
    """What `auto` resolves to by the GPU, and cannot change under an adapter or a checkpoint."""
    ds_config = run.choice.ds_config.name if run.choice.ds_config else None
    now = {"precision": run.choice.precision, "quantization": run.choice.quantization, "ds_config": ds_config}
    return [
        Problem(
            f"--{name}",
            f"comes out as {value} here; the run began with {began[name]}.",
            f"Give --{name} {began[name]}, or go on where it began."
            if began[name]
            else "Start it without `deepspeed`, as before.",
        )
        for name, value in now.items()
        if began.get(name, value) != value
    ]


def model_card(
    run: Run, template: str, corpus: sources.Corpus, train_loss: float, test_loss: float | None
) -> str:
    flags, choice = run.config, run.choice
    weights = "4-bit NF4" if choice.quantization == "4bit" else "unquantised"
    *others, last = (f"{len(part)} {PART_NAMES[name]}" for name, part in corpus.parts.items())
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


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
