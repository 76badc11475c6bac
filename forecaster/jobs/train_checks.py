"""What of a training can be known before anything heavy is imported, downloaded or written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forecaster import tracking
from forecaster.data import sources
from forecaster.errors import ConfigurationError, Problem
from forecaster.fit import cpu_launch, hardware, plan_tables
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
from forecaster.models import liger, registry
from forecaster.settings import Settings, cpp_compiler, named_variables, torch_extensions_folder, use_gpu
from forecaster.tasks.base import Task
from forecaster.tasks.registry import TASKS
from forecaster.training import resuming, starting, train_config
from forecaster.training.run import Run, RunFolder, find_run_folder
from forecaster.training.survival import checkpoints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class CheckedTraining:
    """A run that may start, and where its rows are."""

    run: Run
    train_sources: Sequence[sources.Source]
    test_sources: Sequence[sources.Source] | None
    """None: the test split of the training sources."""
    ranks: int = 1

    @property
    def is_offline(self) -> bool:
        """Whether its rows can be read without asking a hub."""
        return all(source.kind != "hub" for source in [*self.train_sources, *(self.test_sources or [])])

    @property
    def task(self) -> Task:
        return TASKS[self.run.config.task]

    def read_rows(self) -> sources.Corpus:
        """Raises ConfigurationError for rows that cannot be trained on."""
        flags = self.run.config
        corpus = sources.load(
            self.train_sources, self.test_sources, self.task, flags.validation_share, flags.block
        )
        told = [] if flags.allow_told_outcome else sources.find_told_outcomes(corpus, self.task)
        if told:
            raise ConfigurationError(told)
        return corpus


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


def check(flags: train_config.TrainConfig, settings: Settings, given: Collection[str]) -> CheckedTraining:
    """Everything that can be known before loading.

    Args:
        given: Names of the flags on the command line.

    Raises:
        ConfigurationError: with every problem found, not only the first.
    """
    problems = train_config.find_value_problems(flags) + (
        tracking.find_problems(settings) if flags.report_to == "wandb" else []
    )
    if settings.launch_problem:
        problems.append(settings.launch_problem)
    problems += settings.variable_problems

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
        problems += starting.find_problems(flags, model)

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
    else:
        if choice.ds_config:
            problems += train_config.find_ds_config_problems(flags, choice.ds_config)
        if not flags.gpu:
            problems += train_config.find_quantization_problems(choice.quantization)
            problems += liger.find_problems(model, has_gpu=bool(gpus)) if flags.liger else []

    if gpus is not None and not flags.gpu:
        problems += find_machine_problems(flags, settings, on_cpu=not gpus)
    folder = find_run_folder(flags)
    if isinstance(folder, Problem):
        problems.append(folder)
        folder = RunFolder(train_config.OUTPUT_FOLDER)
    if not flags.gpu:
        problems += train_config.find_disk_problems(flags, model, folder.path)
    if problems or isinstance(choice, list) or gpus is None:
        raise ConfigurationError(problems)

    run = Run(flags, model, choice, gpus, folder.path, folder.resume_from)
    resuming.check_files(run)
    return CheckedTraining(run, train_sources, test_sources, ranks)


def find_machine_problems(flags: train_config.TrainConfig, settings: Settings, on_cpu: bool) -> list[Problem]:
    """What ranks need of this machine beside GPUs and disk: a build of DeepSpeed's, and shared memory."""
    under_deepspeed = on_cpu and settings.launched and settings.launch_problem is None
    local = named_variables(["LOCAL_SIZE", "LOCAL_WORLD_SIZE"]).values()
    ranks = min([settings.world_size, *(int(count) for count in local if count.isdecimal())])
    problems = cpu_launch.find_memory_problems(ranks, flags.num_workers, under_deepspeed, flags.dry_run)
    if under_deepspeed:
        problems += cpu_launch.find_build_problems(torch_extensions_folder(), cpp_compiler())
    return problems


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
        use_gpu(gpus[0].cuda_name)
    if gpus and (mismatch := find_torch_mismatch(gpus)):
        problems.append(mismatch)
    return gpus


def find_torch_mismatch(gpus: Sequence[Gpu]) -> Problem | None:
    """A torch that cannot use these GPUs."""
    import torch  # seconds to import, and of use only where there is a GPU to see

    if torch.cuda.is_available() and all(
        built_for(torch.cuda.get_arch_list(), gpu.compute_capability) for gpu in gpus
    ):
        return None
    return torch_mismatch(gpus, torch.__version__, torch.version.cuda)


def run_lines(run: Run, settings: Settings) -> Iterator[str]:
    """What a run is told to be before it starts: GPUs, choices, sizes, folder and flags."""
    flags, choice = run.config, run.choice
    found = ("Asked about " if flags.gpu else "Found ") + describe(run.gpus)
    ranks = ranks_of(flags, settings)
    yield f"{found}; {ranks} rank(s). Chose {'; '.join(choice.reasons)}."
    if choice.plan and choice.plan.chosen:
        yield plan_tables.one_line(choice.plan)
    if choice.quantization == "4bit" and train_config.asked_quantization(flags) == "auto":
        yield (
            "WARNING: 4-bit weights change the numerics; give --quantization 4bit to say that this is meant."
        )
    if run.tuner.note:
        yield run.tuner.note
    if note := train_config.resolve_scheduler(flags).note:
        yield note
    if flags.report_to == "wandb":
        yield tracking.resolve_mode(settings)[1]
    trainable = ""
    if run.model.shape:
        trained, total = run.tuner.parameter_counts(run.model.shape, flags.tuner_settings)
        trainable = f" ({trained:,} trainable of {total:,} parameters)"
    yield f"Base model {run.model.location}, tuner {run.tuner.name}{trainable}."
    at_once = choice.micro_batch_size or flags.batch_size
    accumulated = choice.gradient_accumulation_steps or flags.gradient_accumulation_steps
    yield (
        f"{at_once * accumulated * ranks} rows per optimizer step: {at_once} x {accumulated} accumulated x "
        f"{ranks} rank(s). Output folder {run.output_dir}."
    )
    if run.resume_from:
        yield f"Going on from {run.resume_from}."
        for passed_over in checkpoints.newest_complete(run.output_dir)[1]:
            yield f"Passed over {passed_over.folder}: {passed_over.reason}."
    yield json.dumps(train_config.as_flags(flags), indent=1)


def load_checked_tokenizer(
    checked: CheckedTraining, corpus: sources.Corpus
) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer, and the name of its template, which has rendered the first row.

    Raises:
        ConfigurationError: it cannot be loaded, or its template loses a part of the row.
    """
    from forecaster.models import templates  # seconds to import

    run, row = checked.run, corpus.train[0]
    tokenizer, name = templates.load_tokenizer(run.model, run.config.trust_remote_code)
    messages, answer = checked.task.messages(row), checked.task.answer(row)
    templates.check_template(tokenizer, messages, answer, run.config.base_model)
    return tokenizer, name


def count_lines(corpus: sources.Corpus) -> Iterator[str]:
    """What became of the rows that were read."""
    counts = corpus.counts
    yield (
        f"Rows: {counts.train_read} training and {counts.test_read} test rows read; dropped because a test "
        f"week would not come after its symbol's training: {counts.train_dropped_out_of_order} training, "
        f"{counts.test_dropped_out_of_order} test; {counts.train_after_repeats} training rows after repeats, "
        f"{len(corpus.test)} test rows."
    )
    if corpus.validation is not None:
        yield (
            f"For validation: {counts.validation_held_out} of the training rows, from "
            f"{corpus.validation_from} on; dropped because they would not come after their symbol's "
            f"training: {counts.validation_dropped_out_of_order}; {len(corpus.validation)} validation rows."
        )
    for name, rows in counts.unused_splits.items():
        yield f"Not used: the {rows} rows of {name}."
