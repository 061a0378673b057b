"""Causal language models and tokenizers: from the hub, from a folder, or from scratch."""

from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import LoraConfig, ModelConfig, ScratchModel
from rlhf.errors import UserError
from rlhf.models.pretrained import load_pretrained
from rlhf.models.quantization import keep_differentiable, quantization_options
from rlhf.models.tokenizer import train_tokenizer

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def load_causal_lm(config: ModelConfig) -> "PreTrainedModel":
    """The causal language model that `config.name_or_path` names, with dropout off.

    Raises UserError as `load_pretrained` does.
    """
    from transformers import AutoModelForCausalLM

    if config.name_or_path is None:
        raise UserError("model.name_or_path is not set; name a hub model or the folder of a trained one")
    model = load_pretrained(
        AutoModelForCausalLM,
        config.name_or_path,
        config.trust_remote_code,
        config.gguf_file,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        **quantization_options(config, default_device()),
    )
    keep_differentiable(model)
    disable_dropout(model)
    return model.to(default_device())


def build_from_scratch(config: ScratchModel, texts: list[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """A randomly initialized GPT-2 or Llama and a byte-level BPE tokenizer trained on `texts`.

    Seed the random generators first: the weights depend on them.
    """
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    tokenizer = train_tokenizer(texts, config.vocab_size)
    token_ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    if config.architecture == "gpt2":
        architecture: Any = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.context_length,
            n_embd=config.hidden_size,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's gelu_new, as one fused kernel
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **token_ids,
        )
    else:
        architecture = LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.context_length,
            hidden_size=config.hidden_size,
            intermediate_size=8 * config.hidden_size // 3,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            tie_word_embeddings=True,
            **token_ids,
        )
    return AutoModelForCausalLM.from_config(architecture), tokenizer


def lora_adapters(lora: LoraConfig, model: "PreTrainedModel", task_type: str = "CAUSAL_LM") -> "peft.LoraConfig":
    """PEFT's description of the adapters, for GPT-2's transposed linear layers (Conv1D) as well as for plain ones."""
    import peft

    from rlhf.models.private_names import Conv1D

    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type=task_type,
    )


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout probability to 0, modules and attributes alike, so that train mode is deterministic."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    from rlhf.parallel.launch import join_processes

    return join_processes(None).device


def context_length(model: "PreTrainedModel") -> int:
    """Longest sequence the model has positions for, in tokens."""
    return int(model.config.max_position_embeddings)
