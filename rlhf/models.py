"""Causal language models and tokenizers: from the hub, from a folder, or from scratch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import LoraConfig, ModelConfig, ScratchModel
from rlhf.errors import UserError

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, EOS = "<|pad|>", "<|eos|>"
PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""For tokenizers without a chat template: every turn on its own line, the assistant's closed by EOS.

BOS comes first where the tokenizer itself would put it (Llama does, GPT-2 does not)."""

CODE_PIECES = r"\n *| ?[A-Z]?[a-z]+| ?[A-Z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+"
"""Where words may not be merged across: a line break with its indent, the humps of camelCase, digits, punctuation."""

RESERVED_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]")


def resolve_model_path(name_or_path: str) -> str:
    """A local folder as an absolute path (libraries try the hub first for a relative one), a hub name as it is.

    Raises UserError when the name can only be a path and nothing is there.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:  # hub names have at most one slash
        raise UserError(f"model path {name_or_path!r} does not exist; train that stage first or correct the path")
    return name_or_path


def load_tokenizer(name_or_path: str) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model, with a pad token and a chat template even where its authors set none.

    The pad token is a reserved one where the vocabulary has it, else EOS (masks are explicit throughout, so that
    this is safe).
    """
    from transformers import AutoTokenizer

    tokenizer = _from_hub_or_disk(AutoTokenizer.from_pretrained, resolve_model_path(name_or_path))
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {name_or_path!r} has no EOS token; PPO needs one to know where a response ends"
        )
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        tokenizer.pad_token = next((token for token in RESERVED_PAD_TOKENS if token in vocabulary), tokenizer.eos_token)
    if tokenizer.chat_template is None:
        adds_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if adds_bos else "") + PLAIN_CHAT_TEMPLATE
    return tokenizer


def load_causal_lm(config: ModelConfig) -> "PreTrainedModel":
    """The causal language model that `config.name_or_path` names, with dropout off.

    Raises UserError when it can neither be found on disk nor fetched.
    """
    from transformers import AutoModelForCausalLM

    if config.name_or_path is None:
        raise UserError("model.name_or_path is not set; name a hub model or the folder of a trained one")
    model = _from_hub_or_disk(
        AutoModelForCausalLM.from_pretrained,
        resolve_model_path(config.name_or_path),
        dtype=getattr(torch, config.dtype),
    )
    disable_dropout(model)
    return model.to(default_device())


def build_from_scratch(config: ScratchModel, texts: list[str]) -> "tuple[PreTrainedModel, PreTrainedTokenizerFast]":
    """A randomly initialised GPT-2 or Llama and a byte-level BPE tokenizer trained on `texts`.

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


def train_tokenizer(texts: list[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer (no unknown token, any text round-trips) with distinct pad and EOS tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        chat_template=PLAIN_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def lora_adapters(lora: LoraConfig, model: "PreTrainedModel", task_type: str = "CAUSAL_LM") -> "peft.LoraConfig":
    """PEFT's description of the adapters, for GPT-2's transposed linear layers (Conv1D) as well as for plain ones."""
    import peft
    from transformers.pytorch_utils import Conv1D

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
    from accelerate import PartialState

    return PartialState().device


def context_length(model: "PreTrainedModel") -> int:
    """Longest sequence the model has positions for, in tokens."""
    return int(model.config.max_position_embeddings)


def _from_hub_or_disk(load: Any, name_or_path: str, **options: Any) -> Any:
    """Call a `from_pretrained`; turn the libraries' page-long 'not found' into one line."""
    try:
        return load(name_or_path, **options)
    except OSError as error:
        where = (
            "cannot load the model folder"
            if os.path.isdir(name_or_path)
            else "neither a folder nor a reachable hub model:"
        )
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{where} {name_or_path!r} ({reason})") from error
