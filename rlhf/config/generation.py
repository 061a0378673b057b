"""What decodes the responses of the rollouts."""

from dataclasses import dataclass
from typing import Literal

from rlhf.config.checks import require, require_finite
from rlhf.config.common import ModelConfig, SamplingConfig

VLLM_TEMPERATURES = (0.01, 2.0)
"""vLLM quietly raises a lower temperature to the first of them, and refuses one above the second."""

SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Which engine samples the training batches; what the losses are computed from is always the policy itself.

    Args:
        engine: transformers is the decode loop of this package, on the model that is trained; vllm receives the policy
            before every update (needs GPUs and the extra `vllm`).
        mode: Where vLLM runs: colocate in the training processes, an engine each on its GPU; server as `vllm serve` on
            other GPUs, for all processes.
        gpu_memory_utilization: Share of each GPU's memory that a colocated engine reserves.
        server_url: Address of the server, such as http://localhost:8000.
        send: What vLLM receives: weights, with the adapters merged in, or only the adapters, as files in output_dir,
            which a server must be able to read; it adds them to the base that it was started with.
        overlap: Have the server sample the next batch while the policy learns from this one. Every batch but the first
            is then one update old; importance_correction makes up for it.
    """

    engine: Literal["transformers", "vllm"] = "transformers"
    mode: Literal["colocate", "server"] = "colocate"
    gpu_memory_utilization: float = SHARE
    server_url: str | None = None
    send: Literal["weights", "adapters"] = "weights"
    overlap: bool = False

    def __post_init__(self) -> None:
        require_finite(self)
        require(
            0 < self.gpu_memory_utilization < 1,
            f"generation.gpu_memory_utilization is {self.gpu_memory_utilization}; it must be between 0 and 1",
        )
        require(
            self.engine == "vllm" or (self.mode == "colocate" and self.server_url is None),
            "generation.mode and server_url belong to vllm, but generation.engine is transformers; set engine: vllm",
        )
        require(
            self.gpu_memory_utilization == SHARE or (self.engine == "vllm" and self.mode == "colocate"),
            f"generation.gpu_memory_utilization is {self.gpu_memory_utilization}, which is for a colocated vllm; leave "
            "it out",
        )
        require(
            (self.mode == "server") == (self.server_url is not None),
            f"generation.mode is {self.mode} and server_url is {self.server_url!r}; "
            "mode server needs the address of one, mode colocate has none",
        )
        require(
            not self.overlap or self.mode == "server",
            f"generation.overlap is true, but generation.mode is {self.mode}: only a server samples while the policy "
            "learns; set mode: server and server_url",
        )
        require(
            self.send == "weights" or self.mode == "server",
            "generation.send is adapters, which a server loads, but generation.mode is colocate; set mode: server and "
            "server_url",
        )
        require(
            self.server_url is None or self.server_url.startswith(("http://", "https://")),
            f"generation.server_url is {self.server_url!r}; it must start with http:// or https://",
        )


def require_samplable(
    generation: GenerationConfig, sampling: SamplingConfig, model: ModelConfig, has_adapters: bool
) -> None:
    """Raise UserError for settings that vLLM would refuse, or follow with other probabilities than ours."""
    if generation.engine != "vllm":
        return
    require(
        has_adapters or generation.send == "weights",
        "generation.send is adapters, but lora is null: the policy has none; set send: weights",
    )
    require(
        sampling.merge_adapters != "never",
        "sampling.merge_adapters is never, but generation.engine is vllm, which receives merged weights; "
        "set merge_adapters: auto",
    )
    lowest, highest = VLLM_TEMPERATURES
    require(
        lowest <= sampling.temperature <= highest,
        f"sampling.temperature is {sampling.temperature}; vllm takes {lowest} to {highest}",
    )
    require(
        model.quantization is None,
        "model.quantization is 4bit, into which no adapters can be merged for vllm; "
        "drop one of the two, or set generation.engine: transformers",
    )
    require(
        not model.is_gguf,
        "the model is a GGUF, which vllm would read in a way of its own; "
        "take the same model in safetensors, or set generation.engine: transformers",
    )
