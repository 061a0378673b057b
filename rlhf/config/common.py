"""What several stages share: model, adapters, sampling, tracking."""

import re
from dataclasses import dataclass, field
from typing import Literal

from rlhf.config.checks import require, require_finite, require_not_negative, require_paths, require_positive
from rlhf.config.gguf import split_path
from rlhf.config.renamed import with_old_names

Architecture = Literal["gpt2", "llama"]
DType = Literal["float32", "bfloat16", "auto"]
MergeAdapters = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class ScratchModel:
    """A model built from its config, with random weights and a tokenizer trained on the training data.

    Args:
        architecture: gpt2 or llama.
        hidden_size: Width H.
        layers: Number of transformer blocks.
        heads: Attention heads; must divide hidden_size.
        context_length: Longest prompt + response, in tokens.
        vocab_size: Size V of the byte-level BPE vocabulary, at least 258 (256 bytes, pad, EOS).
    """

    architecture: Architecture = "gpt2"
    hidden_size: int = 192
    layers: int = 4
    heads: int = 6
    context_length: int = 256
    vocab_size: int = 1024

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "hidden_size", "layers", "heads", "context_length")
        require(
            self.hidden_size % self.heads == 0, f"hidden_size {self.hidden_size} is not divisible by heads {self.heads}"
        )
        require(self.vocab_size >= 258, f"vocab_size is {self.vocab_size}; a byte-level vocabulary needs at least 258")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model: a hub name or local folder, or one from scratch.

    Args:
        name_or_path: Hub name (gpt2, meta-llama/Llama-3.2-1B) or folder, or the path of a GGUF.
        gguf_file: Name of the GGUF file in that folder or on the hub. Its weights are dequantized to dtype, which does
            not undo their rounding; needs the extra `gguf`.
        scratch: Build the model from this description instead (SFT only).
        dtype: Precision of the base weights; adapters, value head and log-probabilities are always float32. auto is
            bfloat16 where GPU or processor have instructions for it, else float32; a run folder's config says which.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more compute.
        quantization: 4bit stores the frozen weights of the linear layers in four bits (bitsandbytes' NF4); everything
            else is in dtype, the computation too. Needs the extra `quantized`, and adapters.
        trust_remote_code: Run Python code that comes with the model. Only for a model whose code you have read.
    """

    name_or_path: str | None = None
    gguf_file: str | None = None
    scratch: ScratchModel | None = None
    dtype: DType = "float32"
    quantization: Literal["4bit"] | None = None
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        require_paths(self, "name_or_path", "gguf_file")
        require(
            self.gguf_file is None or self.name_or_path is not None,
            f"model.gguf_file is {self.gguf_file!r}, but name_or_path does not say where it is; set it to that place",
        )
        require(
            not (self.is_gguf and self.quantization is not None),
            "model.quantization is 4bit, but the model is a GGUF, whose weights have been rounded before; remove it",
        )
        require(
            self.name_or_path is None or self.scratch is None,
            f"model has both name_or_path {self.name_or_path!r} and scratch; keep one of them",
        )
        require(
            self.quantization is None or self.scratch is None,
            "model.quantization is 4bit, but a model from scratch has to be trained in full; remove it",
        )

    @property
    def is_gguf(self) -> bool:
        """Whether the weights are read from a GGUF."""
        return split_path(self.name_or_path or "", self.gguf_file)[1] is not None


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters.

    Args:
        r: Rank.
        alpha: The update is scaled by alpha / r.
        target_modules: Names of the linear layers to adapt, or all-linear for every one but the LM head.
    """

    r: int = 16
    alpha: int = 32
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "r", "alpha")
        require(bool(self.target_modules), f"target_modules is {self.target_modules!r}; name at least one layer")


@with_old_names
@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How responses are sampled.

    Args:
        max_new_tokens: Maximum number of tokens of a response; one without EOS is cut off there.
        temperature: Logits are divided by it, in sampling and in the log-probabilities alike; 0 is greedy decoding
            (not for training).
        top_p: Keep the smallest set of tokens with this much probability (not for training: the distribution that
            is sampled from has to be the one that is optimized).
        stop: Strings that end a response, besides EOS; the token that completes one stays part of it.
        merge_adapters: Decode from a copy of the weights with the adapters merged in, which is faster: auto where the
            memory allows it, as decided when a run begins; always; or never, which takes no second copy of the weights.
            The model is the same either way, but not its rounding: in bfloat16 other tokens may be sampled.
    """

    max_new_tokens: int = 96
    temperature: float = 1.0
    top_p: float = 1.0
    stop: list[str] = field(default_factory=list)
    merge_adapters: MergeAdapters = "auto"

    def __post_init__(self) -> None:
        require_finite(self)
        require_positive(self, "max_new_tokens")
        require_not_negative(self, "temperature")
        require(0 < self.top_p <= 1, f"top_p is {self.top_p}; it must be in (0, 1]")
        require("" not in self.stop, "sampling.stop holds an empty string, which would end every response; remove it")


Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio"]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where metrics go besides metrics.jsonl, which is always written.

    Args:
        wandb: online, offline or disabled; auto is online when logged in, else offline (WANDB_MODE overrides it), and
            disabled where wandb is not installed.
        wandb_project: Name of the project, also in the other trackers.
        tensorboard: Write TensorBoard event files; auto does where tensorboard is installed.
        trackers: Further trackers that accelerate supports, such as mlflow or trackio.
        samples: How many samples of each update go into samples.jsonl and the W&B table.
    """

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    wandb_project: str = "rlhf"
    tensorboard: Literal["auto"] | bool = "auto"
    trackers: list[Tracker] = field(default_factory=list)
    samples: int = 4

    def __post_init__(self) -> None:
        require_finite(self)
        require_not_negative(self, "samples")


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """Upload of the finished model to the Hugging Face hub; the token is that of `hf auth login`, or HF_TOKEN.

    Args:
        model_id: Name of the repository, NAME or OWNER/NAME; created if it does not exist.
        private: Make a new repository private.
    """

    model_id: str
    private: bool = True

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.model_id) is not None,
            f"push_to_hub.model_id is {self.model_id!r}; it must be NAME or OWNER/NAME, of letters, digits and -_.",
        )
