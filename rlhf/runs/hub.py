"""The Hugging Face hub: whether it is there, and the upload of a finished model, where the config asks for it."""

import functools
import socket
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from rlhf.config import HubConfig
from rlhf.config.secrets import mask_text
from rlhf.errors import visible, with_kind


@functools.cache
def look_for_hub() -> None:
    """Take what is in the cache, at once, where the hub's name leads nowhere: else its library asks for two minutes.

    Called before anything is loaded by a name of the hub. Behind a proxy, which knows more names, nothing is looked up.
    """
    from huggingface_hub import constants

    if not {"https", "http", "all"} & urllib.request.getproxies().keys():
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
        except OSError:
            constants.HF_HUB_OFFLINE = True


def push(folder: Path, settings: HubConfig | None) -> bool:
    """Upload everything in the folder to `settings.model_id`; returns whether it is there now.

    The run is finished by then: whatever goes wrong is one line on standard error, and nothing is lost.
    """
    if settings is None:
        return False
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        hub = HfApi(library_name="rlhf")
        hub.create_repo(settings.model_id, private=settings.private, exist_ok=True)
        done = hub.upload_folder(repo_id=settings.model_id, folder_path=folder, commit_message=f"Upload {folder.name}")
    except Exception as error:  # no network, no token, no permission, no space: what the hub raises is a long list
        reason = visible(mask_text(with_kind(error)))[:300]
        again = f"it is in {folder}, and the same command tries again"
        print(f"not uploaded to {settings.model_id} ({reason}); {again}", file=sys.stderr, flush=True)
        return False
    print(f"uploaded to {done.commit_url.partition('/commit/')[0]}", flush=True)
    return True
