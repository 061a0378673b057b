"""Upload of a finished model to the Hugging Face hub, where the config asks for it."""

import sys
from pathlib import Path

from rlhf.config import HubConfig
from rlhf.config.secrets import mask_text
from rlhf.errors import visible, with_kind


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
