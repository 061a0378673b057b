"""Causal language models and tokenizers: from the hub, from a folder, or from scratch."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import LoraConfig, ModelConfig, ScratchModel
from rlhf.errors import UserError
from rlhf.quantization import keep_differentiable, quantization_options

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


def load_tokenizer(name_or_path: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model, with a pad token and a chat template even where its authors set none.

    The pad token is a reserved one where the vocabulary has it, else EOS (masks are explicit throughout, so that
    this is safe). Raises UserError as `load_pretrained` does.
    """
    from transformers import AutoTokenizer

    tokenizer = load_pretrained(AutoTokenizer, name_or_path, trust_remote_code)
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

    Raises UserError as `load_pretrained` does.
    """
    from transformers import AutoModelForCausalLM

    if config.name_or_path is None:
        raise UserError("model.name_or_path is not set; name a hub model or the folder of a trained one")
    model = load_pretrained(
        AutoModelForCausalLM,
        config.name_or_path,
        config.trust_remote_code,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        **quantization_options(config, default_device()),
    )
    keep_differentiable(model)
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


def fuse_activations(model: torch.nn.Module) -> None:
    """Compute GPT-2's tanh GELU in one kernel; transformers writes the same formula as eight passes over memory."""
    from transformers.activations import FastGELUActivation, GELUTanh, NewGELUActivation

    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, GELUTanh())


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    from rlhf.launch import join

    return join(None).device


def context_length(model: "PreTrainedModel") -> int:
    """Longest sequence the model has positions for, in tokens."""
    return int(model.config.max_position_embeddings)


def load_pretrained(auto_class: Any, name_or_path: str, trust_remote_code: bool = False, **options: Any) -> Any:
    """What `auto_class.from_pretrained` makes of a hub name or a folder.

    Raises UserError, in one line, when it can neither be found on disk nor fetched, when it needs Python code of its
    own and is not trusted with that, and, with use_safetensors=True among the options, when its weights are a pickle.
    """
    where = resolve_model_path(name_or_path)
    if options.get("use_safetensors"):
        _refuse_pickles(Path(where))
    try:
        return auto_class.from_pretrained(where, trust_remote_code=trust_remote_code, **options)
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name_or_path!r} comes with Python code, which would be run to load it; read that code, and set "
            "trust_remote_code: true beside its name if you trust it"
            if "custom code" in reason
            else f"cannot load {name_or_path!r} ({reason})"
        ) from error
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        folder = os.path.isdir(where)
        place = "cannot load the model folder" if folder else "neither a folder nor a reachable hub model:"
        raise UserError(f"{place} {name_or_path!r} ({reason})") from error


def _refuse_pickles(folder: Path) -> None:
    """Raise UserError for a folder whose weights are there as a pickle only: to read one can be to run code."""
    for unsafe, safe in (("pytorch_model", "model"), ("adapter_model", "adapter_model")):
        pickles = sorted(folder.glob(f"{unsafe}*.bin"))
        if pickles and not any(folder.glob(f"{safe}*.safetensors")):
            convert = (
                "import sys, transformers as t; m = t.AutoModelForCausalLM.from_pretrained(sys.argv[1], "
                "use_safetensors=False); m.save_pretrained(sys.argv[1])"
            )
            raise UserError(
                f"{pickles[0]} is a pickle, which may run code when it is read; if you trust it, convert it to "
                f'safetensors: python -c "{convert}" {shlex.quote(str(folder))}'
            )
