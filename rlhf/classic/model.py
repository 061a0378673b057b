"""The causal language model with a value head that scripts for TRL know, with its names and its files."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from rlhf.classic.checkpoints import HEAD, load_head, read_checkpoint, read_head, save_checkpoint
from rlhf.classic.loading import check_devices, initialize, quantized, refuse_for_loaded, with_adapters
from rlhf.classic.reward_adapter import load_reward_adapter
from rlhf.classic.weight_files import Source
from rlhf.config.checks import require
from rlhf.models.dropout import disable_dropout
from rlhf.parallel.launch import join_processes, require_data_parallel
from rlhf.policy.value_head import ValueHeadModel

if TYPE_CHECKING:
    import peft


class AutoModelForCausalLMWithValueHead(ValueHeadModel):
    """A causal language model, plain or PEFT, whose last hidden states also feed a linear value head `v_head.summary`.

    Different from TRL's: dropout is off, in the head too unless it is asked for; adapters that are loaded can be
    trained; a stored value head is loaded by name and shape or not at all; `save_pretrained` makes the folder and
    writes no pickle.

    Args:
        pretrained_model: A PreTrainedModel or PeftModel.
        summary_dropout_prob: Dropout of the value head in train mode, until a PPOTrainer takes the model; None takes
            what `config.summary_dropout_prob` of the model says, else 0.
        v_head_init_strategy: None draws the head as a linear layer of PyTorch's, normal from N(0,
            v_head_initializer_range^2) with a bias of 0.
        v_head_initializer_range: Standard deviation for normal; None is 0.2.
    """

    transformers_parent_class = AutoModelForCausalLM
    supported_args = ("summary_dropout_prob", "v_head_initializer_range", "v_head_init_strategy")

    def __init__(
        self,
        pretrained_model: Any,
        summary_dropout_prob: float | None = None,
        v_head_init_strategy: str | None = None,
        v_head_initializer_range: float | None = None,
    ) -> None:
        if summary_dropout_prob is None:
            summary_dropout_prob = getattr(pretrained_model.config, "summary_dropout_prob", None) or 0.0
        require(0 <= summary_dropout_prob < 1, f"summary_dropout_prob is {summary_dropout_prob}; it must be in [0, 1)")
        super().__init__(pretrained_model, summary_dropout_prob)
        initialize(self.v_head.summary, v_head_init_strategy, v_head_initializer_range)
        self.supports_rm_adapter, self.rm_adapter_name = False, ""
        self.score: nn.Linear | None = None
        self.policy_adapter_name = pretrained_model.active_adapter if self.is_peft_model else "default"
        self.is_loaded_in_8bit = bool(getattr(pretrained_model, "is_loaded_in_8bit", False))
        self.is_loaded_in_4bit = bool(getattr(pretrained_model, "is_loaded_in_4bit", False))
        self.is_sequential_parallel = check_devices(pretrained_model) > 1

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        peft_config: "peft.PeftConfig | None" = None,
        is_trainable: bool = True,
        reward_adapter: str | Path | None = None,
        reward_adapter_name: str = "reward_adapter",
        **kwargs: Any,
    ) -> Self:
        """Load a model, and its value head where one is stored with it; else the head is a new one.

        Args:
            pretrained_model_name_or_path: Hub name, folder (a plain model, adapters, or what `save_pretrained` or TRL
                wrote), or a model object.
            model_args: For the `from_pretrained` of transformers.
            peft_config: Puts new adapters on a plain model.
            is_trainable: False freezes adapters that are loaded.
            reward_adapter: Folder or hub name of a reward model's adapters, for `compute_reward_score`; PEFT only.
            reward_adapter_name: Their name in the model.
            kwargs: summary_dropout_prob, v_head_init_strategy and v_head_initializer_range are for the value head;
                load_in_8bit and load_in_4bit become a quantization_config; use_safetensors=False also reads pickles
                (pytorch_model.bin), which are refused otherwise; the rest is for transformers.

        Raises UserError when a tensor is missing, misnamed, not finite or of the wrong shape, and for a model that is
        no causal language model.
        """
        require_data_parallel("the classic loop")
        device = join_processes(None).device
        for_head = {name: kwargs.pop(name) for name in cls.supported_args if name in kwargs}
        model, head, use_safetensors = pretrained_model_name_or_path, None, kwargs.pop("use_safetensors", True)
        if not isinstance(model, str | Path):
            refuse_for_loaded(model_args, kwargs | {"is_trainable=False": not is_trainable}, reward_adapter)
        else:
            source = Source.of(model, use_safetensors is False, kwargs)
            model, head = read_checkpoint(source, *model_args, is_trainable=is_trainable, **quantized(kwargs, device))
            for_head.setdefault("summary_dropout_prob", 0.0)  # a file is not somebody who asks for dropout
        model = with_adapters(model, peft_config)
        for_head.setdefault("summary_dropout_prob", getattr(model.config, "summary_dropout_prob", None))
        disable_dropout(model)  # and the dropout of the head in its config
        wrapper = cls(model, **for_head)
        if head is not None:
            load_head(wrapper.v_head, head, str(pretrained_model_name_or_path))
        if reward_adapter is not None:
            where = Source.of(str(reward_adapter), use_safetensors is False, kwargs)
            wrapper.score = load_reward_adapter(wrapper.pretrained_model, where, reward_adapter_name)
            wrapper.supports_rm_adapter, wrapper.rm_adapter_name = True, reward_adapter_name
        return wrapper

    def save_pretrained(self, save_directory: str | Path, *, trl_0_11: bool = False, **kwargs: Any) -> None:
        """Write model (or adapters) and value head in TRL's layout, as safetensors; see `save_checkpoint`."""
        save_checkpoint(self, save_directory, trl_0_11=trl_0_11, **kwargs)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: Any = None, **kwargs: Any) -> str:
        """Upload what `save_pretrained` writes; returns the address of the commit.

        Args:
            repo_id: NAME or OWNER/NAME; made if it is not there yet.
            private: Whether a new repository can be seen by its owner only.
            token: Else that of `hf auth login`, or HF_TOKEN.
            kwargs: For `HfApi.upload_folder`, such as commit_message, revision and create_pr.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token, library_name="rlhf")
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(hub.upload_folder(repo_id=repo_id, folder_path=folder, **kwargs).commit_url)

    @property
    def config(self) -> Any:
        """The language model's."""
        return self.pretrained_model.config

    @property
    def current_device(self) -> torch.device:
        """Where the value head is."""
        return self.v_head.summary.weight.device

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """The language model's."""
        return self.pretrained_model.prepare_inputs_for_generation(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Trade compute for activation memory, in train mode."""
        self.pretrained_model.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self.pretrained_model.gradient_checkpointing_disable()

    def enable_input_require_grads(self) -> None:
        """Let gradients pass through the embeddings' output, as checkpointing with reentrance needs."""
        self.pretrained_model.enable_input_require_grads()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The language model's weights under its own names, and `v_head.*`; of a PEFT model only what is trained.

        As a part of another module, all of it under the names that PyTorch gives.
        """
        if args or kwargs.get("destination") is not None or kwargs.get("prefix"):
            return super().state_dict(*args, **kwargs)
        weights = self.pretrained_model.state_dict(**kwargs)
        if self.is_peft_model:
            trained = {name for name, p in self.pretrained_model.named_parameters() if p.requires_grad}
            weights = {name: tensor for name, tensor in weights.items() if name in trained}
        return weights | {f"v_head.{name}": tensor for name, tensor in self.v_head.state_dict(**kwargs).items()}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Take weights under the names of `state_dict()`, or under those that PyTorch gives.

        With strict, RuntimeError as from PyTorch for a name that is missing or left over; the frozen base of a PEFT
        model may be missing.
        """
        own = super().state_dict()
        given = {name if name in own else f"pretrained_model.{name}": tensor for name, tensor in state_dict.items()}
        if strict and self.is_peft_model:
            given = {name: own[name] for name in own.keys() - self._trained_names()} | given
        return super().load_state_dict(given, strict, assign)

    def post_init(self, state_dict: dict[str, Tensor]) -> None:
        """Take the value head, where there is one among these tensors; UserError if a shape differs."""
        head = {name.partition("v_head.")[2]: tensor for name, tensor in state_dict.items() if "v_head." in name}
        if head:
            load_head(self.v_head, head, "state_dict")

    @torch.no_grad()
    def compute_reward_score(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Scores [B, L, labels] of the reward adapter at every token; the policy's adapter is active again afterwards.

        Raises UserError for a model without `reward_adapter`.
        """
        require(
            self.score is not None, "the model has no reward adapter; load it with from_pretrained(reward_adapter=)"
        )
        assert self.score is not None
        was_training = self.training
        self.pretrained_model.set_adapter(self.rm_adapter_name)
        self.eval()
        try:
            output = self.pretrained_model(input_ids, attention_mask, output_hidden_states=True, **kwargs)
            return self.score(output.hidden_states[-1].to(self.score.weight))
        finally:
            self.pretrained_model.set_adapter(self.policy_adapter_name)
            self.train(was_training)

    def _trained_names(self) -> set[str]:
        """PyTorch's names of the tensors in `state_dict()`."""
        return {name if name in HEAD else f"pretrained_model.{name}" for name in self.state_dict()}


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
    require(
        read_head(Source.of(name_or_path, allow_pickle, options)) is not None,
        f"{name_or_path} holds no {HEAD[0]}; if the value head is to be a new one, load it with "
        "AutoModelForCausalLMWithValueHead.from_pretrained",
    )
    return AutoModelForCausalLMWithValueHead.from_pretrained(name_or_path, use_safetensors=not allow_pickle, **options)
