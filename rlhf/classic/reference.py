"""The frozen reference: a copy of the model, of which the first layers may be shared."""

import copy
import re
from typing import Any

from rlhf.config.checks import require


def create_reference_model(model: Any, num_shared_layers: int | None = None, pattern: str | None = None) -> Any:
    """A frozen copy of the model, as the reference that it starts from.

    Args:
        model: A value-head model, or a plain one.
        num_shared_layers: What comes before this layer (embeddings and layers 0 ... num_shared_layers - 1) is frozen
            in the model too, and shared instead of copied.
        pattern: How the parameters of a layer are called, with {layer} for its number: "transformer.h.{layer}". None
            looks for the number itself.

    Raises UserError where no parameter is called like that.
    """
    shared = [] if num_shared_layers is None else first_parameters(model, num_shared_layers, pattern)
    for parameter in shared:
        parameter.requires_grad_(False)
    reference = copy.deepcopy(model, {id(parameter): parameter for parameter in shared})
    return reference.requires_grad_(False).eval()


def first_parameters(model: Any, num_shared_layers: int, pattern: str | None) -> list[Any]:
    """The parameters before a layer, in the order of the model."""
    name_of_layer = rf"\.{num_shared_layers}\."
    if pattern is not None:
        name_of_layer = re.escape(pattern.format(layer=num_shared_layers)) + r"(\.|$)"
    named = list(model.named_parameters())
    first = next((at for at, (name, _) in enumerate(named) if re.search(name_of_layer, name)), None)
    require(
        first is not None,
        f"num_shared_layers is {num_shared_layers}, but no parameter of {type(model).__name__} belongs to a layer of "
        f"that number{f' by the pattern {pattern!r}' if pattern else ''}; give a smaller number or another pattern",
    )
    return [parameter for _, parameter in named[:first]]
