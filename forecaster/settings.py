"""Keys and process facts from `.env` and the environment: the only module that reads environment
variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from urllib.parse import quote, quote_plus

from dotenv import find_dotenv, load_dotenv
from huggingface_hub import get_token

from forecaster.errors import ConfigurationError, Problem
from forecaster.plain_text import read_text

JOB = "FORECASTER_JOB"
"""Marks every process of a job; its value begins with the process id of the supervisor, which the ranks
watch."""
WALK = "FORECASTER_WALK"
"""Marks every process that a walk's trainings start; its value is the walk's folder."""
_SECRET_NAMES = (
    "WANDB_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "FINNHUB_API_KEY",
    "FINNHUB_KEY",
    "OPENAI_API_KEY",
)


_SHORTEST_SECRET = 6
_RANK_NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
_LAUNCH_NAMES = (*_RANK_NAMES, "MASTER_ADDR", "MASTER_PORT")
"""What deepspeed and torchrun set for each rank. A cluster sets the last two alone."""
_ON_OFF = ("[01]", "0 or 1")
_WHOLE = (r"\d{1,6}", "a whole number")
_FORMS = {
    "LOCAL_RANK": (r"\d{1,6}", "a whole number from 0 on, as `torchrun` and `deepspeed` set it"),
    "LOCAL_SIZE": (r"[1-9]\d{0,5}", "a whole number from 1 on"),
    "MASTER_ADDR": (
        r"[A-Za-z0-9](?:[\w.-]{0,252})|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%\w+)?",
        "a host or address",
    ),
    "MASTER_PORT": (
        r"0*(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])",
        "a port from 1 to 65535",
    ),
    "OMP_NUM_THREADS": (r"[1-9]\d{0,5}(?:,[1-9]\d{0,5})*", "a whole number from 1 on"),
    "DS_ACCELERATOR": ("(?-i:cpu|cuda)", "cpu or cuda"),
    "CUDA_DEVICE_ORDER": ("PCI_BUS_ID|FASTEST_FIRST", "PCI_BUS_ID or FASTEST_FIRST"),
    "CUDA_DEVICE_MAX_CONNECTIONS": (r"[1-9]|[12]\d|3[0-2]", "a whole number from 1 to 32"),
    **dict.fromkeys(
        ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"),
        (
            r"\w+:(?:\[[^\[\]]*\]|[\w.:]+)(?:\s*,\s*\w+:(?:\[[^\[\]]*\]|[\w.:]+))*,?",
            "name:value,name:value, such as expandable_segments:True",
        ),
    ),
    "NCCL_DEBUG": ("VERSION|WARN|INFO|ABORT|TRACE|NONE", "VERSION, WARN, INFO or TRACE"),
    "NCCL_P2P_LEVEL": ("LOC|NVL|PIX|PXB|PHB|NODE|SYS|[0-5]", "LOC, NVL, PIX, PXB, PHB or SYS"),
    "NCCL_SOCKET_IFNAME": (r"[\^=]{0,2}[\w.:@-]+(?:,[\w.:@-]+)*", "a comma list of network interfaces"),
    "NCCL_SOCKET_FAMILY": ("AF_INET6?", "AF_INET or AF_INET6"),
    "TORCH_DISTRIBUTED_DEBUG": ("OFF|INFO|DETAIL", "OFF, INFO or DETAIL"),
    **dict.fromkeys(
        ("NCCL_IB_DISABLE", "NCCL_SHM_DISABLE", "NCCL_P2P_DISABLE", "CUDA_LAUNCH_BLOCKING"), _ON_OFF
    ),
    **dict.fromkeys(
        ("NCCL_NSOCKS_PERTHREAD", "NCCL_SOCKET_NTHREADS", "NCCL_BUFFSIZE", "NCCL_IB_TIMEOUT"), _WHOLE
    ),
    **dict.fromkeys(
        ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_BLOCKING_WAIT"), ("[0-3]", "0, 1, 2 or 3")
    ),
}
"""How variables look that torch, DeepSpeed and NCCL read themselves, and how that is said. What looks
otherwise ends in a traceback, or in a wait for ever."""
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Numbers of processes that mpirun started, which accelerate would take for ranks."""


@dataclass(frozen=True)
class Settings:
    """What the environment says; secrets never show in a repr."""

    hf_token: str | None = field(default=None, repr=False)
    wandb_api_key: str | None = field(default=None, repr=False)
    wandb_mode: str | None = None
    """`online`, `offline`, `disabled`, or None when the user did not say."""
    wandb_project: str = "stock-forecaster"
    finnhub_api_key: str | None = field(default=None, repr=False)
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    openai_model: str | None = None
    """The teacher."""
    cuda_visible_devices: str | None = None
    rank: int = 0
    world_size: int = 1
    launched: bool = False
    """Whether a distributed launcher (deepspeed, torchrun) started this process."""
    launch_problem: Problem | None = None
    """Where a launcher's variables are there in part only: a process that would wait for others that there
    are not, or train beside them."""
    variable_problems: tuple[Problem, ...] = ()
    """Variables that the libraries of a training read, and that are not what they take."""
    supervisor_pid: int | None = None
    """The process behind train.sh that looks after this one, on this machine."""


def load_settings() -> Settings:
    """Read `.env` of the working folder, then the environment, which wins.

    Keys from `.env` are put into this process's environment, where the Hugging Face and W&B clients look for
    them. Raises ConfigurationError for a `.env` that is no text.
    """
    _drop_empty_keys()  # one that is set but empty would hide the one in `.env`
    try:
        if path := find_dotenv(usecwd=True):
            text = read_text(Path(path))
            if "\0" in text:  # UTF-16 without its mark: no variable can hold one
                raise ConfigurationError([Problem(".env", "holds zero bytes.", "Save it as UTF-8.")])
            load_dotenv(stream=StringIO(text), override=False)
    except UnicodeDecodeError:  # not its cause: that one quotes the file
        raise ConfigurationError([Problem(".env", "is no UTF-8 text.", "Save it as UTF-8.")]) from None
    _drop_empty_keys()  # one that is empty would make the clients ask for another
    launch_problem = _find_launch_problem()
    return Settings(
        hf_token=get_token(),
        wandb_api_key=os.environ.get("WANDB_API_KEY"),
        wandb_mode=_wandb_mode(),
        wandb_project=os.environ.get("WANDB_PROJECT") or Settings.wandb_project,
        finnhub_api_key=_stripped("FINNHUB_API_KEY") or _stripped("FINNHUB_KEY"),
        openai_api_key=_stripped("OPENAI_API_KEY"),
        openai_base_url=_stripped("OPENAI_BASE_URL"),
        openai_model=_stripped("OPENAI_MODEL"),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        rank=_whole_number("RANK", 0),
        world_size=_whole_number("WORLD_SIZE", 1),
        launched="WORLD_SIZE" in os.environ,
        launch_problem=launch_problem,
        variable_problems=tuple(_find_variable_problems()),
        supervisor_pid=int(job) if (job := os.environ.get(JOB, "").partition("-")[0]).isdecimal() else None,
    )


def _drop_empty_keys() -> None:
    for name in _SECRET_NAMES:
        if os.environ.get(name, "").strip() == "":
            os.environ.pop(name, None)


def _wandb_mode() -> str | None:
    """WANDB_MODE, in W&B's newer words; WANDB_DISABLED, its older switch, stands above it."""
    if (_stripped("WANDB_DISABLED") or "").lower() in ("true", "1", "yes", "on", "t", "y"):
        return "disabled"
    mode = (_stripped("WANDB_MODE") or "").lower()
    return {"dryrun": "offline", "run": "online"}.get(mode, mode) or None


def _whole_number(name: str, default: int) -> int:
    text = _stripped(name)
    if text is not None and not re.fullmatch("[0-9]{1,9}", text):
        found, way_out = f"is {text!r}.", "A launcher sets it to a whole number; unset it otherwise."
        raise ConfigurationError([Problem(name, found, way_out)])
    return default if text is None else int(text)


def _find_variable_problems() -> Iterator[Problem]:
    for name, (form, allowed) in _FORMS.items():
        value = os.environ.get(name, "").strip()
        if value and not re.fullmatch(form, value, re.ASCII | re.IGNORECASE):
            yield Problem(name, f"is {value[:60]!r}.", f"It takes {allowed}; unset it otherwise.")
    rank, ranks = _stripped("LOCAL_RANK") or "", _stripped("WORLD_SIZE") or ""
    if rank.isdecimal() and ranks.isdecimal() and int(rank) >= int(ranks):
        yield Problem("LOCAL_RANK", f"is {rank}, and WORLD_SIZE is {ranks}.", "Ranks count from 0.")


def _find_launch_problem() -> Problem | None:
    """Why the processes of a launch would not find each other; None: it is whole, or there is none."""
    launcher = "`./train.sh`, `deepspeed` or `torchrun`"
    found = {name: value for name in _LAUNCH_NAMES if (value := _stripped(name))}
    if found.keys().isdisjoint(_RANK_NAMES):
        for size in _MPI_SIZES:
            if (_stripped(size) or "1") != "1":
                said = f"is {_stripped(size)}, and RANK and WORLD_SIZE are not set: each would train alone."
                return Problem(size, said, f"Start one {launcher} instead, or unset it.")
        return None
    missing = [name for name in _LAUNCH_NAMES if name not in found]
    if missing:
        said = ", ".join(f"{name}={value}" for name, value in found.items())
        way_out = f"Start it with {launcher}, which set all of them, or unset {', '.join(found)}."
        if any(map(_stripped, ("SLURM_PROCID", *_MPI_SIZES))):
            way_out = f"SLURM and MPI do not set these: give each task its own. {way_out}"
        return Problem(next(iter(found)), f"{said} without {', '.join(missing)}.", way_out)
    rank, ranks = _whole_number("RANK", 0), _whole_number("WORLD_SIZE", 1)
    if rank >= ranks:
        way_out = f"Ranks count from 0: start it with {launcher}."
        return Problem("RANK", f"is {rank}, and WORLD_SIZE is {ranks}.", way_out)
    return None


def _stripped(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def named_variables(names: Iterable[str]) -> dict[str, str]:
    """Those of the named variables that are set and not blank."""
    return {name: value for name in names if (value := _stripped(name))}


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a key, by the project's own names or by what names say."""
    return name in _SECRET_NAMES or re.search(r"KEY|TOKEN|SECRET|PASSWORD", name.upper()) is not None


def deepspeed_env_files() -> list[Path]:
    """Files whose variables the deepspeed launcher copies to remote nodes: `DS_ENV_FILE`, else
    `.deepspeed_env`, in the home folder and in the working folder."""
    name = _stripped("DS_ENV_FILE") or ".deepspeed_env"
    return [path for folder in (Path.home(), Path.cwd()) if (path := folder / name).is_file()]


def redact(text: str) -> str:
    """`text` with every secret value of the environment replaced by its name, also where it is part of a
    URL.

    Words too short for a key stay: a local server takes any word, and it would be replaced everywhere.
    """
    for name in _SECRET_NAMES:
        if len(value := _stripped(name) or "") >= _SHORTEST_SECRET:
            for spelling in sorted({value, quote(value), quote(value, safe=""), quote_plus(value)}):
                text = re.sub(re.escape(spelling), f"<{name}>", text, flags=re.IGNORECASE)
    return text


def use_gpu(cuda_name: str) -> None:
    """Show this process one GPU only; call it before torch is imported. An index is nvidia-smi's."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = cuda_name


def calm_openmp() -> None:
    """Let idle OpenMP threads sleep, unless the user chose otherwise; call it before torch is imported.

    Threads that spin while they wait take the cores from every other process: two CPU ranks, or a training
    beside anything else, were ten times slower. A GPU run does not notice.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def let_segments_grow() -> None:
    """Let torch extend blocks of GPU memory in place of asking for new ones, unless the user chose otherwise;
    call it before torch is imported.

    Batches differ in length: blocks of fixed sizes are left over between them. The name is the old one, which
    torch 2.6 to 2.13 all read.
    """
    if not {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"


def draw_without_screen() -> None:
    """Have matplotlib draw into files; call it before it is imported.

    A notebook hands its own backend to what it starts, and matplotlib refuses to be imported where that one
    is not installed.
    """
    os.environ["MPLBACKEND"] = "Agg"


def unpickle_data_only() -> None:
    """Have every `torch.load` of this process refuse what is not data, whatever a library asks for."""
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)  # torch ends where both are set
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"


def inherited_environment() -> dict[str, str]:
    """What a child process gets where nothing else is said, keys included: for its `env` alone."""
    return dict(os.environ)


def cpp_compiler() -> str:
    """The C++ compiler that torch calls."""
    return _stripped("CXX") or "c++"


def torch_extensions_folder() -> Path:
    """Where torch builds DeepSpeed's extensions."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache) / "torch_extensions")
