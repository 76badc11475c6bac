"""The small files of a hub model, so that a run can be checked before it fetches the large ones."""

from __future__ import annotations

from pathlib import Path

import httpx2
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from forecaster.errors import ConfigurationError, Problem
from forecaster.http_limits import HubFaultError
from forecaster.models.base_files import too_many_tokens
from forecaster.models.base_schemas import check_small_files
from forecaster.models.registry import ModelConfigFile, cannot_load
from forecaster.schemas import read_checked

_SMALL_FILES = (
    *("config.json", "generation_config.json", "model.safetensors.index.json"),
    *(
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.*",
        "merges.txt",
        "chat_template*",
    ),
)
_REFUSALS = (401, 403, 404)
_WAY_OUT = "Name another model."


def fetch_small_files(hub_id: str) -> Path | str:
    """The folder of a hub model's configuration and tokenizer, some megabytes; fetched where not here.

    Returns:
        Why they are not here, where the hub is not reached.

    Raises:
        ConfigurationError: the hub refuses them, or does not have the model.
    """
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_SMALL_FILES)))
    except HfHubHTTPError as error:
        if error.response.status_code in _REFUSALS:
            raise ConfigurationError([cannot_load(hub_id, str(error))]) from error
        return f"the hub answers with HTTP {error.response.status_code}"
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError, ConnectionError) as error:
        cause = error.__cause__ or error
        return str(cause) if isinstance(cause, HubFaultError) else "the hub was not reached"


def check_hub_files(hub_id: str, folder: Path) -> None:
    """Check what `fetch_small_files` gave.

    Raises:
        ConfigurationError: with file and field; or a tokenizer of more tokens than the embedding has rows.
    """
    check_small_files(folder, _WAY_OUT)
    if not (folder / "config.json").is_file():
        raise ConfigurationError([cannot_load(hub_id, "it has no config.json")])
    rows = read_checked(folder / "config.json", ModelConfigFile, _WAY_OUT).vocab_size
    if rows is not None and (found := too_many_tokens(hub_id, folder, rows)):
        raise ConfigurationError([Problem("--base_model", found, "Take a model whose tokenizer fits it.")])
