"""Libraries that a plain install does not bring; the code that needs one names it, and the extra that brings it."""

import importlib.util

from rlhf.errors import UserError

DISTRIBUTION = "rlhf-ppo"
EXTRAS = {
    "bitsandbytes": "quantized",
    "deepspeed": "deepspeed",
    "gguf": "gguf",
    "langdetect": "instructions",
    "matplotlib": "report",
    "nltk": "instructions",
    "punkt": "instructions",
    "quickjs": "react",
    "shtab": "completion",
    "tensorboard": "tensorboard",
    "tree_sitter": "react",
    "tree_sitter_typescript": "react",
    "vllm": "vllm",
    "wandb": "wandb",
}
"""Module: the extra that brings it."""


def installs(module: str) -> str:
    """The command that installs a module's extra."""
    return f"pip install '{DISTRIBUTION}[{EXTRAS[module]}]'"


def is_installed(module: str) -> bool:
    """Whether a module can be imported; it is not."""
    return importlib.util.find_spec(module) is not None


def require_extra(module: str, what: str, error: type[Exception] = UserError) -> None:
    """Raise an error, one line that begins with what needs the module, unless that is installed."""
    if not is_installed(module):
        raise error(f"{what} needs {module}, which is not installed: {installs(module)}")
