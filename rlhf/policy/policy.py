"""Policy, critic and reference on one trunk.

One frozen base model serves all three: the policy is base + LoRA, the reference is the base with adapters disabled,
the critic is a value head on the policy's features or on those of adapters of its own. A model that is trained in full
takes a frozen copy as its reference. This folder alone knows the value-head model (ours, or TRL's in `rlhf.classic`)
and PEFT's adapter switches, with their traps.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from rlhf.config import WITH_ADAPTERS, Critic, LoraConfig
from rlhf.config.checks import require
from rlhf.fast.install import install
from rlhf.models.adapters import stirred
from rlhf.models.dropout import disable_dropout
from rlhf.models.head import head_of, require_head, trunk_of
from rlhf.models.private_names import loaded_from
from rlhf.policy.branch import require_branch
from rlhf.policy.logprobs import token_logprobs
from rlhf.policy.own_reference import require_own_reference
from rlhf.policy.shortcuts import Shortcuts
from rlhf.policy.value_head import (
    CRITIC_ADAPTER,
    belongs_to_critic,
    check_precision,
    policy_adapter,
    wrap_in_full,
    wrap_with_value_head,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyOutput(NamedTuple):
    """What the networks say about sampled responses; each [B, T], 0 outside the response mask.

    `values` and `entropy` are 0 throughout where they were not asked for.
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor


class Policy(nn.Module):
    """A causal language model with a value head, and its reference.

    Args:
        wrapper: A value-head model (ours or TRL's) around a PEFT model, or a plain one that is trained in full.
            Whatever requires a gradient is trained.
        critic: Which features the value head sees, and whether its gradient reaches the policy.
        reference: A frozen model of its own; None takes the PEFT model with its adapters off.
        new_critic: Whether the value head is 0 everywhere, because it has not been trained yet.
        fast_paths: Use `rlhf.fast`; False runs the code of transformers, PEFT and PyTorch as it is.

    Raises UserError for a model that is noisy in train mode, for one whose logits are more than its LM head, a scale
    and a soft cap make of its last hidden state (`require_head`), for adapters without which it is no reference
    (`require_own_reference`), and for float16; warns of weights that are trained in bfloat16.
    """

    def __init__(
        self,
        wrapper: Any,
        critic: Critic,
        reference: "PreTrainedModel | None" = None,
        new_critic: bool = False,
        fast_paths: bool = True,
    ) -> None:
        super().__init__()
        self.wrapper, self.critic, self.new_critic, self.fast_paths = wrapper, critic, new_critic, fast_paths
        self.is_peft = hasattr(wrapper.pretrained_model, "peft_config")
        require(
            self.is_peft or reference is not None,
            "the model is trained in full and has no reference; give ref_model, a frozen copy of it",
        )
        self.adapter = policy_adapter(wrapper.pretrained_model, critic)
        self.frozen_reference = None if reference is None else reference.requires_grad_(False).eval()
        self.reads_reference, self.shortcuts = False, Shortcuts()
        self.divided_trunks: dict[nn.Module, list[Any]] = {}  # see rlhf.policy.sharding, and .whole for this:
        self.whole: dict[nn.Module, dict[str, Tensor]] = {}
        disable_dropout(self)
        self.trainable = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        check_precision(self.language_model, [p for _, p in self.trainable])
        if self.adapter:
            self._activate(self.adapter)
        if fast_paths:
            install(self, self.language_model)
        with stirred(self.adapters()):
            require_head(self.language_model, outermost=self.wrapper.pretrained_model)
        if critic == "branch":
            require_branch(wrapper.branch, self.language_model)
        if reference is None:
            require_own_reference(self.wrapper.pretrained_model, self.trainable)
        else:
            require_head(reference)
        self.train()  # dropout is off; without train mode models ignore gradient checkpointing

    @classmethod
    def with_lora(
        cls,
        model: "PreTrainedModel",
        lora: LoraConfig,
        critic: Critic,
        gradient_checkpointing: bool = False,
        fast_paths: bool = True,
        critic_lora: LoraConfig | None = None,
        critic_layers: int | None = None,
    ) -> Self:
        """New adapters and a new value head on a frozen base, which without them is the reference, bit for bit.

        Args:
            lora: Rank, scale and targets of the adapters.
            critic: As above; `adapter` gives the critic adapters of its own, `branch` on its last blocks alone.
            gradient_checkpointing: Trade compute for activation memory.
            critic_lora: Rank and scale of the critic's adapters, where they are not those of the policy's.
            critic_layers: Blocks of the branch; None is a quarter of them.
        """
        wrapper = wrap_with_value_head(model, lora, critic, critic_lora, critic_layers)
        policy = cls(wrapper, critic, new_critic=True, fast_paths=fast_paths)
        if gradient_checkpointing:
            policy._checkpoint_gradients(model)
        return policy

    @classmethod
    def in_full(
        cls,
        model: "PreTrainedModel",
        critic: Critic,
        gradient_checkpointing: bool = False,
        fast_paths: bool = True,
        reference: "PreTrainedModel | None" = None,
        critic_trunk: nn.Module | None = None,
    ) -> Self:
        """All weights of a model trained, with a new value head; a frozen copy of it is the reference.

        Args:
            model: As it is now; should be in float32.
            critic: As above; `separate` gives the critic a trunk of its own, which begins as a copy.
            gradient_checkpointing, fast_paths, reference: As above; critic_trunk: likewise in place of a copy.
        """
        wrapper = wrap_in_full(model, critic, critic_trunk)
        policy = cls(wrapper, critic, reference or copy.deepcopy(model), new_critic=True, fast_paths=fast_paths)
        for trunk in filter(None, (model, wrapper.critic_trunk) if gradient_checkpointing else ()):
            trunk.gradient_checkpointing_enable({"use_reentrant": False})
        return policy

    @property
    def language_model(self) -> "PreTrainedModel":
        """The causal language model that is trained, adapters (if any) inside its linear layers."""
        model = self.wrapper.pretrained_model
        return model.get_base_model() if self.is_peft else model

    @property
    def lora(self) -> LoraConfig | None:
        """Rank, scale and targets of the policy's adapters, as asked for; None for a model that is trained in full."""
        asked: LoraConfig | None = self.wrapper.lora
        return asked

    @property
    def base_name(self) -> str:
        """Hub name or absolute folder of the base model, which is the reference."""
        return loaded_from(self.frozen_reference or self.language_model)

    @property
    def base_gguf_file(self) -> str | None:
        """The GGUF in that place that the base was read from; None for any other kind of model."""
        return getattr(self.frozen_reference or self.language_model, "gguf_file", None)

    @property
    def device(self) -> torch.device:
        return self.wrapper.v_head.summary.weight.device

    def critic_parameters(self) -> list[nn.Parameter]:
        """Value head, and the critic's own adapters if it has any."""
        return [p for name, p in self.trainable if belongs_to_critic(name)]

    def policy_parameters(self) -> list[nn.Parameter]:
        """The policy's adapters, or all weights of a model that is trained in full."""
        return [p for name, p in self.trainable if not belongs_to_critic(name)]

    def adapters(self) -> list[nn.Parameter]:
        """The policy's; none where all weights are trained."""
        return self.policy_parameters() if self.is_peft else []

    def forward(
        self,
        sequence_ids: Tensor,
        prompt_lengths: Tensor,
        response_mask: Tensor,
        temperature: float = 1.0,
        with_values: bool = True,
        with_entropy: bool = False,
        critic_only: bool = False,
    ) -> PolicyOutput:
        """Log-probabilities, values and entropy of given responses.

        Args:
            sequence_ids: [B, L] prompt and response without a gap, anything after the response. Causal attention
                keeps what comes after from mattering, so neither an attention mask nor position ids are needed.
            prompt_lengths: [B]; response token t of row b stands at sequence_ids[b, prompt_lengths[b] + t].
            response_mask: [B, T].
            temperature: Logits are divided by it, as in sampling.
            with_values: Ask the critic too. values[b, t] is V of the state before response token t.
            with_entropy: Also the entropy of each token's distribution, in nats.
            critic_only: Gradients for the critic's own parameters alone.
        """
        rows, steps = response_mask.nonzero(as_tuple=True)  # [N] valid response tokens
        before = prompt_lengths[rows] + steps - 1  # the position that predicts each of them
        token_ids = sequence_ids[rows, before + 1]
        branch = self.wrapper.branch if with_values and self.critic == "branch" else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not critic_only):
            with branch.leaving() if branch else contextlib.nullcontext([]) as left:
                features = self.features(sequence_ids)[rows, before]  # [N, H]
            head = head_of(self.reader)
            logprobs, entropy = token_logprobs(features, token_ids, head, temperature, with_entropy, self.fast_paths)
        with branch.going_on(left) if branch else contextlib.nullcontext():
            values = self._values(features, sequence_ids, rows, before) if with_values else torch.zeros_like(logprobs)

        def spread(x: Tensor) -> Tensor:  # [N] -> [B, T]
            return x.new_zeros(response_mask.shape).index_put((rows, steps), x)

        return PolicyOutput(spread(logprobs), spread(values), spread(entropy))

    def start_values_at(self, value: float) -> None:
        """Make a new critic say `value` everywhere: climbing there from 0 would cost it several updates."""
        self.wrapper.v_head.summary.bias.data.fill_(value)
        self.new_critic = False

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context `forward` is the frozen reference model; without gradients."""
        with torch.no_grad():
            if self.frozen_reference is not None:
                self.reads_reference = True
                try:
                    yield
                finally:
                    self.reads_reference = False
                return
            try:
                with self.wrapper.pretrained_model.disable_adapter():
                    yield
            finally:
                self._restore_gradients()

    def features(self, input_ids: Tensor) -> Tensor:
        """Last hidden states: [B, L] -> [B, L, H]."""
        return trunk_of(self.reader)(input_ids=input_ids, use_cache=False).last_hidden_state

    @property
    def reader(self) -> "PreTrainedModel":
        """The model that `forward` runs: the policy's, or the reference's where that is a model of its own."""
        return self.frozen_reference if self.reads_reference and self.frozen_reference else self.language_model

    def _values(self, features: Tensor, sequence_ids: Tensor, rows: Tensor, before: Tensor) -> Tensor:
        """The critic's estimate for each valid token: [N]."""
        if self.critic == "detached":
            features = features.detach()
        elif self.critic in WITH_ADAPTERS:
            with self._using(CRITIC_ADAPTER):
                features = self.features(sequence_ids)[rows, before]
        elif self.critic == "separate":
            trunk = self.wrapper.critic_trunk
            features = trunk(input_ids=sequence_ids, use_cache=False).last_hidden_state[rows, before]
        return self.wrapper.v_head(features).squeeze(-1)

    @contextlib.contextmanager
    def _using(self, adapter: str) -> Iterator[None]:
        active = self.wrapper.pretrained_model.active_adapter
        self._activate(adapter)
        try:
            yield
        finally:
            self._activate(active)

    def _activate(self, adapter: str) -> None:
        """Switch the adapter that the trunk runs with; all of them stay trainable."""
        if self.wrapper.pretrained_model.active_adapter != adapter:
            self.wrapper.pretrained_model.set_adapter(adapter)
        self._restore_gradients()

    def _restore_gradients(self) -> None:
        """PEFT freezes the adapters that it switches off; a gradient may still be on its way to them."""
        for _, parameter in self.trainable:
            parameter.requires_grad_(True)

    def _checkpoint_gradients(self, model: "PreTrainedModel") -> None:
        """Recompute in the backward pass with the adapter that was active in the forward pass."""

        def contexts() -> tuple[Any, Any]:
            return contextlib.nullcontext(), self._using(self.wrapper.pretrained_model.active_adapter)

        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
