"""What open_clip's built-in tags and others' models are loaded from: the Hugging Face cache, else the hub."""

from pathlib import Path
from typing import Final

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

TIMEOUT: Final = 8.0  # seconds for a first answer


def fetch(address: str) -> Path:
    """Return where a safetensors file of weights lies in the cache; never a pickle.

    Args:
        address: `OWNER/NAME/` or `OWNER/NAME/FILE`, as open_clip's tags have it.

    Raises:
        Exception: whatever huggingface_hub and the network raise.
    """
    repository, _, name = address.rpartition("/")
    return cached(repository, f"{name.rpartition('.')[0] or 'open_clip_model'}.safetensors")


def cached(repository: str, file: str, revision: str | None = None) -> Path:
    """Return where a repository's file lies in the cache, after downloading it on first use.

    A cached file is used without asking the hub, so that nothing changes or waits behind the user's back.

    Args:
        repository: `OWNER/NAME`.
        file: in it.
        revision: a commit, so that files belong together; None: the newest, or what was cached as such.

    Raises:
        Exception: whatever huggingface_hub and the network raise.
    """
    found = try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(found, str):
        return Path(found)
    # A question that fails at once: `hf_hub_download` would ask a dead network again and again, for half a minute.
    get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=TIMEOUT)
    return Path(hf_hub_download(repository, file, revision=revision))
