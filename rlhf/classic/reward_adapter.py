"""A reward model as one more set of adapters on the policy's base, by the names that TRL gives it."""

from typing import TYPE_CHECKING, Any

from torch import nn

from rlhf.classic.weight_files import Source, adapter_file, read_tensors
from rlhf.config.checks import require

if TYPE_CHECKING:
    from peft import PeftModel


def load_reward_adapter(model: "PeftModel | Any", source: Source, name: str) -> nn.Linear:
    """Load the adapters of a sequence classifier under a name, frozen; returns its score head [labels, H], frozen too.

    Raises UserError for a model without adapters, and for a folder without a score head.
    """
    require(hasattr(model, "peft_config"), "reward_adapter needs a PEFT model; give peft_config too")
    require(name not in model.peft_config, f"reward_adapter_name {name!r} is taken by an adapter of the model")
    file = adapter_file(source)
    head = {key.rpartition(".")[2]: tensor for key, tensor in read_tensors(file).items() if ".score." in f".{key}"}
    require("weight" in head, f"{file} holds no score head; reward_adapter must be that of a sequence classifier")
    model.load_adapter(source.name, name, is_trainable=False, **source.hub)
    labels, hidden_size = head["weight"].shape
    score = nn.Linear(hidden_size, labels, bias="bias" in head)
    score.load_state_dict(head)
    return score.to(model.get_output_embeddings().weight.device).requires_grad_(False)
