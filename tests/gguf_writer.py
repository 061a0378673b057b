"""A Llama as a GGUF, written with the package gguf as llama.cpp's converter writes one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CHATML = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_gguf(
    file: Path,
    folder: Path,
    *,
    quantization: str = "F32",
    pre: str = "smollm",
    left_out: str = "",
    extra: dict[str, np.ndarray] | None = None,
    settings: dict[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Write the Llama in `folder` (from `build_from_scratch`) to `file`; returns its weights as they were rounded.

    Args:
        file: The GGUF.
        folder: The model.
        quantization: Of the blocks' matrices: a name from GGMLQuantizationType.
        pre: How the vocabulary splits text (`tokenizer.ggml.pre`).
        left_out: A tensor that is not written.
        extra: Tensors that no Llama has.
        settings: Further strings of the metadata.
    """
    import gguf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    writer, kind = gguf.GGUFWriter(str(file), "llama"), gguf.GGMLQuantizationType[quantization]
    _describe(writer, model.config)
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), pre)
    for key, value in (settings or {}).items():
        writer.add_string(key, value)
    rounded = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        is_matrix = ".layers." in name and weight.dim() == 2
        numbers = gguf.quantize(weight.numpy(), kind) if is_matrix else weight.numpy()
        rounded[name] = torch.from_numpy(gguf.dequantize(numbers, kind)) if is_matrix else weight
        if is_matrix and name.split(".")[-2] in ("q_proj", "k_proj"):  # llama.cpp pairs neighbors, not halves
            numbers = gguf.quantize(_neighbors(weight, model.config.num_attention_heads).numpy(), kind)
        if _short(name) != left_out:
            writer.add_tensor(_short(name), numbers, raw_dtype=kind if is_matrix else None)
    for name, numbers in (extra or {}).items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return rounded


def _describe(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], pre: str) -> None:
    """Token 1 is EOS and pads too, as in SmolLM2."""
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def _neighbors(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of each head in the order 0, n/2, 1, n/2 + 1 ...: halves interleaved."""
    rows = weight.shape[0] // heads
    order = [head * rows + row // 2 + (rows // 2) * (row % 2) for head in range(heads) for row in range(rows)]
    return weight[order].contiguous()


def _short(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` as `blk.0.ffn_up.weight`."""
    stem, leaf = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.{leaf}"
    return f"{NAMES[stem]}.{leaf}"
