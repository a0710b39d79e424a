"""Models from the Hugging Face hub, downloaded once into the hub's own cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.errors import UserError
from tubelet.files import is_disk_full

HUB_CONFIG = "config.json"
HUB_PREPROCESSOR, HUB_VIDEO_PREPROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json"
HUB_PROCESSORS = "processor_config.json"
HUB_SETTINGS = (HUB_CONFIG, HUB_PREPROCESSOR, HUB_VIDEO_PREPROCESSOR, HUB_PROCESSORS)
"""The settings of a model and of its preprocessing."""
HUB_ADAPTER = "adapter_config.json"
"""Of a PEFT adapter, which is not a whole model; loading says so."""
HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The weights of a whole model, the preferred format first."""
BY_HAND = "download the file on another machine and give its path instead"
GO_ONLINE = "unset TUBELET_OFFLINE and HF_HUB_OFFLINE"


def is_offline() -> bool:
    """Return whether `TUBELET_OFFLINE` or `HF_HUB_OFFLINE` is set to 1, true, yes or on."""
    names = ("TUBELET_OFFLINE", "HF_HUB_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


def fetch_hub(repo: str, *, file: str | None = None) -> Path:
    """Return the newest version of a model from the hub, or from the cache if the hub cannot be reached.

    Args:
        repo: `owner/name`.
        file: one file in the repository; None is the configuration and the weights, `model.safetensors` or,
            if there is no such file, `pytorch_model.bin`.

    Returns:
        The file, or the folder with those files.

    Raises:
        UserError: it does not exist, is not public or cannot be reached; the message says what to do.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    # huggingface_hub reads these two settings only once, when it is imported.
    endpoint, offline = os.environ.get("HF_ENDPOINT") or None, is_offline()
    with _hub_errors(repo, file):
        if file is not None:
            return Path(hf_hub_download(repo, file, endpoint=endpoint, local_files_only=offline))
        for weights in HUB_WEIGHTS:
            index, parts = f"{weights}.index.json", weights.replace(".", "-*-of-*.")
            patterns = [*HUB_SETTINGS, HUB_ADAPTER, weights, index, parts]
            folder = Path(
                snapshot_download(repo, endpoint=endpoint, local_files_only=offline, allow_patterns=patterns)
            )
            if any((folder / name).is_file() for name in (weights, index, HUB_ADAPTER)):
                return folder
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise UserError(
        f"no weights of {repo} from the hub: expected {' or '.join(HUB_WEIGHTS)}, found {found} in {folder}; "
        + (GO_ONLINE if offline else f"download one of its files from https://huggingface.co/{repo}")
    )


@contextmanager
def _hub_errors(repo: str, file: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    what = f"{file} of {repo}" if file else repo
    page = f"https://huggingface.co/{repo}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except Exception as error:
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        offline = is_offline() or isinstance(error.__cause__, errors.OfflineModeIsEnabled)
        match error:
            case errors.GatedRepoError():
                message = f"{what} is gated: request access on {page}, then {log_in}, and try again"
            case errors.RepositoryNotFoundError():
                message = f"the hub has no {repo}: check the name, or, if it is private, {log_in}"
            case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() if offline:
                message = (
                    f"{what} is not in the hub's cache and the network is off: {GO_ONLINE}, or {BY_HAND}"
                )
            case errors.LocalEntryNotFoundError():
                message = f"cannot download {what} ({reason}): connect to the network, or {BY_HAND}"
            case errors.EntryNotFoundError():
                message = f"{repo} has no file '{file}': {page}/tree/main lists its files"
            case errors.HFValidationError():
                message = f"'{repo}' is not a repository of the hub: expected owner/name ({reason})"
            case _ if is_disk_full(error):
                message = (
                    f"the disk is full: free space for {what}, or set HF_HOME to a folder on another disk"
                )
            case _:  # The errors of the hub's transport differ between its versions.
                message = f"cannot download {what} ({reason}): try again later, or {BY_HAND}"
        raise UserError(message) from error
