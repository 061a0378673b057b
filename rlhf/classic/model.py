"""TRL's causal language model with a value head; what it gets wrong on loading and saving is put right here."""

import copy
import os
from pathlib import Path
from typing import Any, Self

from rlhf.classic.checkpoints import HEAD, load_head, read_checkpoint, read_head, save_checkpoint
from rlhf.config.checks import require
from rlhf.errors import UserError
from rlhf.models.dropout import disable_dropout
from rlhf.models.pretrained import resolve_model_path
from rlhf.parallel.launch import join_processes

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # its removal is why this module exists
try:
    from trl.experimental.ppo import AutoModelForCausalLMWithValueHead as TRLModel
except ImportError as error:
    raise UserError(
        "the installed trl has no AutoModelForCausalLMWithValueHead, which trl 1.13 removed; "
        "install a release that has it: pip install 'trl>=1.10,<1.13'"
    ) from error

WRAPPER_OPTIONS = (*TRLModel.supported_args, "peft_config", "reward_adapter", "reward_adapter_name")


class AutoModelForCausalLMWithValueHead(TRLModel):
    """A causal language model, plain or PEFT, whose last hidden states also feed a linear value head `v_head.summary`.

    `forward` and `generate` are TRL's. Different from it: dropout is off, in the head too; adapters that are loaded
    can be trained; a stored value head is loaded by name and shape or not at all; `save_pretrained` makes the folder
    and writes no pickle.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Self:
        """Load a model, and its value head where one is stored with it; else the head is a new one.

        Args:
            pretrained_model_name_or_path: Hub name, folder (a plain model, adapters, or what `save_pretrained` or TRL
                wrote), or a model object.
            model_args: For the `from_pretrained` of transformers.
            kwargs: peft_config puts new adapters on a plain model; is_trainable=False freezes loaded ones;
                use_safetensors=False also reads pickles (pytorch_model.bin), which are refused otherwise;
                v_head_init_strategy and reward_adapter as in TRL; the rest is for transformers.

        Raises UserError when a tensor is missing, misnamed or of the wrong shape.
        """
        join_processes(None)  # TRL would ask accelerate for its state in a way that forgets ACCELERATE_USE_CPU
        own = {name: kwargs.pop(name) for name in WRAPPER_OPTIONS if name in kwargs}
        model, head = pretrained_model_name_or_path, None
        if isinstance(model, str | Path):
            allow_pickle = kwargs.pop("use_safetensors", True) is False
            source = resolve_model_path(str(model))
            model, head = read_checkpoint(source, *model_args, allow_pickle=allow_pickle, **kwargs)
        wrapper = super().from_pretrained(model, **own)
        disable_dropout(wrapper)
        if head is not None:
            load_head(wrapper.v_head, head, str(pretrained_model_name_or_path))
        return wrapper

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write model (or adapters) and value head in TRL's layout, as safetensors; see `save_checkpoint`."""
        save_checkpoint(self, save_directory, **kwargs)


def load_checkpoint(
    name_or_path: str | Path, allow_pickle: bool = False, **options: Any
) -> AutoModelForCausalLMWithValueHead:
    """A TRL value-head checkpoint with exactly the head that is stored in it.

    Args:
        name_or_path: Folder or hub name.
        allow_pickle: Also read pytorch_model.bin and adapter_model.bin; only tensors, no code in them is run.
        options: As for `AutoModelForCausalLMWithValueHead.from_pretrained`.

    Raises UserError when there is no value head, or any tensor is missing, misnamed or of the wrong shape.
    """
    source = resolve_model_path(str(name_or_path))
    require(
        read_head(source, allow_pickle) is not None,
        f"{source} holds no {HEAD[0]}; if the value head is to be a new one, load it with "
        "AutoModelForCausalLMWithValueHead.from_pretrained",
    )
    return AutoModelForCausalLMWithValueHead.from_pretrained(source, use_safetensors=not allow_pickle, **options)


def create_reference_model(model: Any) -> Any:
    """A frozen copy of the model, as the reference that it starts from."""
    return copy.deepcopy(model).requires_grad_(False).eval()
