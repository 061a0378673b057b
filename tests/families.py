"""Families of causal language models as tiny random ones: the table of docs/reference/models.md."""

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

VOCABULARY = 320
PLAIN = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
GPT = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "bos_token_id": 1,
    "eos_token_id": 1,
}  # fmt: skip
OLD = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
FOUR_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NOISY = {"attention_dropout": 0.1, "hidden_dropout": 0.1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8}
LATENT = {
    "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
GEMMA = {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
    "patch_size": 8, "model_type": "siglip_vision_model",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        config: Class of transformers.
        settings: Its arguments.
        reads: How responses are sampled (fast, plain, uncached: `rlhf.sampling.batch.Way`); refused if PPO refuses it.
        generates: Prompts that the classic `generate` takes at once: several, one, or none.
        message: What the refusal says.
        remark: For the table.
    """

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    reads: str = "fast"
    generates: str = "several"
    message: str = ""
    remark: str = ""


def family(config: str, *settings: dict[str, Any], **known: str) -> Family:
    merged: dict[str, Any] = {}
    for some in settings:
        merged |= some
    return Family(config, merged, **known)


FAMILIES = {
    "GPT-2": family("GPT2Config", GPT),
    "GPT-Neo": family(
        "GPTNeoConfig", OLD, {"num_layers": 2, "num_heads": 4, "max_position_embeddings": 128},
        {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    ),
    "GPT-J": family("GPTJConfig", GPT, {"rotary_dim": 8}),
    "GPT-NeoX, Pythia": family("GPTNeoXConfig", PLAIN, NOISY),
    "CodeGen": family("CodeGenConfig", GPT, {"rotary_dim": 8}),
    "GPT-BigCode, SantaCoder": family("GPTBigCodeConfig", GPT),
    "StarCoder2": family("Starcoder2Config", PLAIN, NOISY, {"residual_dropout": 0.1, "embedding_dropout": 0.1}),
    "OPT": family(
        "OPTConfig", OLD,
        {"ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 16, "layerdrop": 0.1},
    ),
    "BLOOM": family("BloomConfig", OLD, NOISY, remark="no limit of positions"),
    "Falcon": family("FalconConfig", OLD, NOISY, remark="weights not packed"),
    "MPT": family("MptConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4},
                  {"max_seq_len": 128, "expansion_ratio": 2}),
    "XGLM": family(
        "XGLMConfig", {"vocab_size": VOCABULARY, "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
        {"max_position_embeddings": 128, "layerdrop": 0.1},
    ),
    "BioGPT": family("BioGptConfig", PLAIN, {"layerdrop": 0.1}),
    "CTRL": family("CTRLConfig", GPT, {"dff": 48}),
    "OpenAI GPT": family("OpenAIGPTConfig", GPT, reads="uncached", remark="has no cache"),
    "Llama": family("LlamaConfig", PLAIN),
    "Mistral": family("MistralConfig", PLAIN, {"sliding_window": 8}),
    "Mixtral": family("MixtralConfig", PLAIN, {"num_local_experts": 4, "router_jitter_noise": 0.1},
                      remark="adapters on the experts too; weights not packed"),
    "Qwen2": family("Qwen2Config", PLAIN),
    "Qwen2-MoE": family("Qwen2MoeConfig", PLAIN, FOUR_EXPERTS, {"shared_expert_intermediate_size": 16}),
    "Qwen3": family("Qwen3Config", PLAIN, {"head_dim": 8}),
    "Qwen3-MoE": family("Qwen3MoeConfig", PLAIN, FOUR_EXPERTS, {"head_dim": 8}, remark="weights not packed"),
    "Qwen3-Next": family(
        "Qwen3NextConfig", PLAIN, FOUR_EXPERTS,
        {"head_dim": 8, "shared_expert_intermediate_size": 16, "layer_types": ["linear_attention", "full_attention"]},
        {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        reads="plain",
    ),
    "Gemma": family("GemmaConfig", PLAIN, {"head_dim": 8}),
    "Gemma 2": family("Gemma2Config", PLAIN, GEMMA, {"final_logit_softcapping": 0.5}, remark="soft cap"),
    "Gemma 3": family("Gemma3TextConfig", PLAIN, GEMMA),
    "Gemma 3, multimodal": family(
        "Gemma3Config", {"text_config": {**PLAIN, **GEMMA, "model_type": "gemma3_text"}, "vision_config": VISION},
        {"mm_tokens_per_image": 1, "image_token_index": 300}, remark="text only; none on the vision tower",
    ),
    "Gemma 3n": family(
        "Gemma3nTextConfig", PLAIN, {"num_hidden_layers": 4, "head_dim": 8, "vocab_size_per_layer_input": VOCABULARY},
        {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2, "laurel_rank": 4, "sliding_window": 8},
        {"activation_sparsity_pattern": [0.0] * 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
        reads="plain", remark="layers share keys and values",
    ),
    "Phi": family("PhiConfig", PLAIN, {"num_key_value_heads": 4}),
    "Phi-3": family("Phi3Config", PLAIN),
    "Phi-3.5-MoE": family("PhimoeConfig", PLAIN, {"num_local_experts": 4, "input_jitter_noise": 0.1},
                          remark="none on its router"),
    "StableLM": family("StableLmConfig", PLAIN),
    "OLMo 2": family("Olmo2Config", PLAIN),
    "OLMoE": family("OlmoeConfig", PLAIN, {"num_experts": 4, "num_experts_per_tok": 2}, remark="weights not packed"),
    "Cohere": family("CohereConfig", PLAIN, {"logit_scale": 0.25}, remark="scale"),
    "Cohere 2": family(
        "Cohere2Config", PLAIN,
        {"logit_scale": 0.25, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        remark="scale",
    ),
    "Granite": family("GraniteConfig", PLAIN, {"logits_scaling": 8.0, "residual_multiplier": 0.22}, remark="scale"),
    "Granite-MoE": family("GraniteMoeConfig", PLAIN, {"num_local_experts": 4, "logits_scaling": 6.0}, remark="scale"),
    "SmolLM3": family("SmolLM3Config", PLAIN),
    "EXAONE 4": family("Exaone4Config", PLAIN),
    "GLM-4": family("Glm4Config", PLAIN, {"head_dim": 8}),
    "Nemotron": family("NemotronConfig", PLAIN),
    "Persimmon": family("PersimmonConfig", PLAIN),
    "gpt-oss": family("GptOssConfig", PLAIN, {"num_local_experts": 4, "num_experts_per_tok": 2},
                      {"head_dim": 8, "sliding_window": 8}),
    "DeepSeek-V3": family("DeepseekV3Config", PLAIN, LATENT, remark="keys and values of different width"),
    "Mamba": family("MambaConfig", OLD, {"state_size": 8}, reads="uncached", remark="no limit of positions"),
    "Falcon-H1": family("FalconH1Config", PLAIN, MAMBA, {"mamba_d_ssm": 64, "head_dim": 8, "lm_head_multiplier": 0.5},
                        reads="plain", remark="scale"),
    "LFM2": family("Lfm2Config", PLAIN, {"layer_types": ["conv", "full_attention"]}, reads="plain"),
    "Jamba": family(
        "JambaConfig", PLAIN, {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
        {"expert_layer_offset": 1, "num_experts": 4, "mamba_d_state": 8, "mamba_dt_rank": 4},
        {"use_mamba_kernels": False}, reads="plain",
    ),
    "RecurrentGemma": family(
        "RecurrentGemmaConfig", PLAIN, {"lru_width": 32, "attention_window_size": 16},
        reads="uncached", generates="none",
    ),
    "MiniMax": family(
        "MiniMaxConfig", PLAIN,
        {"head_dim": 8, "num_local_experts": 4, "layer_types": ["linear_attention", "full_attention"]},
        reads="uncached", generates="one",
    ),
    "RWKV": family("RwkvConfig", OLD, {"context_length": 128}, reads="uncached", generates="none"),
    "RWKV, scaled": family(
        "RwkvConfig", OLD, {"context_length": 128, "num_hidden_layers": 6, "rescale_every": 2},
        reads="refused", generates="none", message="or on eval mode",
        remark="scales its weights, not the adapters, when it samples",
    ),
    "BERT as a decoder": family(
        "BertConfig", PLAIN, {"is_decoder": True}, reads="refused", generates="none",
        message="does more to its logits than its LM head", remark="layers between trunk and LM head",
    ),
    "XLNet": family(
        "XLNetConfig", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
        reads="refused", generates="none", message="depends on the tokens that come after",
        remark="not causal",
    ),
    "Llama 4": family(
        "Llama4TextConfig", PLAIN, {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 48},
        {"head_dim": 8}, reads="refused", generates="none", message="cannot be trained on tokens alone",
        remark="no trunk of its own",
    ),
}  # fmt: skip


def build(family: Family) -> transformers.PreTrainedModel:
    """A random model, far from the near-uniform distribution of a fresh one."""
    torch.manual_seed(0)
    config = getattr(transformers, family.config)(**family.settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.data.mul_(3.0)
    return model


def table() -> str:
    """The rows of docs/reference/models.md."""
    words = {"fast": "cached", "plain": "cached (transformers' own)", "uncached": "without a cache"}
    lines = ["| family | PPO | sampling | classic `generate` | remark |", "| --- | --- | --- | --- | --- |"]
    for name, row in FAMILIES.items():
        refused = row.reads == "refused"
        several = {"several": "any batch", "one": "`batch_size=1`", "none": "refused"}[row.generates]
        cells = [name, "refused" if refused else "exact", words.get(row.reads, ""), several, row.remark]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
