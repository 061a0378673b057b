"""Where in a run's folder its model is, for a config that names the folder itself."""

import functools
import sys
from pathlib import Path

from rlhf.errors import UserError
from rlhf.parallel.launch import rank
from rlhf.runs.folder import CONFIG_FILE

MODEL_FILES = ("policy.json", "config.json", "adapter_config.json")
PLACES = ("policy", "model", "ppo/policy", "sft/model")
"""Of PPO, of SFT and the reward model, and of the two in a pipeline; what was trained last comes first."""


def model_in(name_or_path: str) -> str:
    """A model's folder or hub name as it is; for the folder of a run the model in it, with a line that says which.

    Raises UserError where a run has no model yet.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir() or _is_model(folder):
        return name_or_path
    found = next((folder / place for place in PLACES if _is_model(folder / place)), None)
    if found is None and (folder / CONFIG_FILE).is_file():
        raise UserError(f"{name_or_path} is a run without a model in it; let it come to its end, or name another model")
    if found is None:
        return name_or_path
    if rank() == 0:
        _say(f"{name_or_path} is the folder of a run; the model in it is {found}")
    return str(found)


@functools.cache  # once
def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _is_model(folder: Path) -> bool:
    return any((folder / file).is_file() for file in MODEL_FILES)
