"""Causal language models and tokenizers: from the hub, from a folder, or from scratch."""

import re
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import LoraConfig, ModelConfig, ScratchModel
from rlhf.errors import UserError
from rlhf.models.adapters import reading
from rlhf.models.dropout import disable_dropout
from rlhf.models.head import not_on_tokens
from rlhf.models.precision import torch_dtype
from rlhf.models.pretrained import load_pretrained
from rlhf.models.quantization import keep_differentiable, quantization_options
from rlhf.models.tokenizer import train_tokenizer

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ALL_LINEAR = "all-linear"
FUSED_BY, FUSED = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"), ["conv1d", "out_proj"]
"""Models whose GPU kernels read the weights of these layers past any adapter; PEFT refuses them."""


def load_causal_lm(config: ModelConfig, device: torch.device | None = None) -> "PreTrainedModel":
    """The causal language model that `config.name_or_path` names, with dropout off, on the default device or another.

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
        dtype=torch_dtype(config.dtype),
        use_safetensors=True,
        **quantization_options(config, default_device()),
    )
    keep_differentiable(model)
    disable_dropout(model)
    return model.to(device or default_device())


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
    """PEFT's description of the adapters, for GPT-2's transposed linear layers (Conv1D) as well as for plain ones.

    Raises UserError for a name in lora.target_modules that no layer has; PEFT would leave it out.
    """
    import peft

    from rlhf.models.private_names import Conv1D

    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=targets(lora, model),
        exclude_modules=unsuitable(model) if lora.target_modules == ALL_LINEAR else None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type=task_type,
    )


def targets(lora: LoraConfig, model: "PreTrainedModel") -> str | list[str]:
    """all-linear, or a list of names, each of which the model has; PEFT would take a bare name for a pattern."""
    if lora.target_modules == ALL_LINEAR:
        return ALL_LINEAR
    names = [lora.target_modules] if isinstance(lora.target_modules, str) else list(lora.target_modules)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "weight") and name}
    for name in names:
        if not any(layer == name or layer.endswith(f".{name}") for layer in layers):
            there = sorted({layer.rpartition(".")[2] for layer, module in layers.items() if is_matrix(module)})
            raise UserError(
                f"lora.target_modules has {name!r}, which is the name of no layer of {type(model).__name__}; "
                f"it has {', '.join(there)}; or take {ALL_LINEAR}"
            )
    return names


def unsuitable(model: "PreTrainedModel") -> list[str] | None:
    """Linear layers that adapters would have no effect on, or do not fit: found by having the model read a few tokens.

    Such are a router that returns more than a product, layers whose weights are read past the layer (Mamba's kernels),
    a vision tower, attention to an encoder that is not there. One of many experts may be idle without being left out.
    """
    from rlhf.models.private_names import Conv1D

    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    used: dict[bool, set[str]] = {True: set(), False: set()}

    def note(name: str, output: Any) -> None:
        if torch.is_tensor(output):
            used[model.training].add(kind_of(name))

    hooks = [m.register_forward_hook(lambda *call, name=name: note(name, call[-1])) for name, m in linear.items()]
    try:
        for in_train_mode in used:  # Gemma 3n reads some weights directly in one of the two
            reading(model, in_train_mode)
    except Exception as error:
        raise UserError(not_on_tokens(model, error)) from error
    finally:
        for hook in hooks:
            hook.remove()
    in_both = used[True] & used[False]
    names = [
        name for name in linear if kind_of(name) not in in_both and linear[name] is not model.get_output_embeddings()
    ]
    names += FUSED if model.config.model_type in FUSED_BY else []
    return names or None


def kind_of(layer: str) -> str:
    """The name of a layer without its numbers: the same for all blocks."""
    return re.sub(r"\d+", "*", layer)


def is_matrix(module: torch.nn.Module) -> bool:
    """Whether a layer is one that adapters are usually put on."""
    return getattr(module.weight, "ndim", 0) == 2 and not isinstance(module, torch.nn.Embedding)


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    from rlhf.parallel.launch import join_processes

    return join_processes(None).device
