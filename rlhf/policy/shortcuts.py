"""What has been found out about faster ways to sample from a policy."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Shortcuts:
    """Which ways to sample faster lead to the same place; None until somebody has looked.

    Attributes:
        merges: Whether the model with adapters merged into its weights computes what it computes with them apart.
        copies: Whether decoding may take the memory for a copy of the weights with the adapters merged in; decided once
            (`rlhf.sampling.memory`), because what rounds differently samples other tokens.
        decoding: How it reads token by token what it reads at once: from packed weights with a cache that is filled in
            place (fast), with transformers' own (plain), or from the first token again every time (uncached).
        continues: Whether a conversation may go on from the keys and values of its last turn.
        generates: What is wrong with transformers' `generate` of so many prompts at a time; empty if nothing is.
    """

    merges: bool | None = None
    copies: bool | None = None
    decoding: Literal["fast", "plain", "uncached"] | None = None
    continues: bool | None = None
    generates: dict[int, str] = field(default_factory=dict)
