"""Where vLLM runs, and how it gets the policy's weights: in this process, or as a server (`rlhf.sampling.vllm_server`).

Both are reached through vLLM's own interface. What is sent are exact merged weights, or the adapters as they are.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from rlhf.config import PPOConfig
from rlhf.errors import UserError, with_kind
from rlhf.extras import require_extra
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

MAX_BATCHED_TOKENS = 4096
"""Of one pass of a colocated engine. By default it sets so much memory aside that little is left for keys."""

Response = tuple[list[int], list[float]]
"""Token ids, and the log-probability of each under the distribution that was sampled from."""


class Engine(Protocol):
    """Where vLLM runs."""

    def load(self) -> None:
        """Send it the weights of the policy as it is now."""

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        """One response to each prompt; the settings of each are vLLM's SamplingParams, with logprobs 0."""


@contextlib.contextmanager
def in_one_line(url: str | None) -> Iterator[None]:
    """Raise UserError for whatever fails between here and vLLM, a server at that address or in this process.

    vLLM and its server raise whatever they please, some of it a bare Exception; another version of vLLM than this was
    written for may fail at the import, at the first weights that it is sent, or later.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, ImportError) else None  # the name that this vLLM does not have
        reason = with_kind(cause or error)
        where = "in this process" if url is None else f"as a server at {url}"
        raise UserError(f"cannot use vllm {where} ({reason[:300]}); docs/how-to/vllm.md says what it needs") from error


def longest(config: PPOConfig) -> int | None:
    """Tokens that vLLM has to be able to read; None is the model's context."""
    if config.environment is not None:
        return config.environment.max_tokens
    return config.data.max_prompt_tokens + config.sampling.max_new_tokens


class Colocated:
    """An engine in this process, on its GPU, whose model is within reach."""

    def __init__(self, config: PPOConfig, policy: Policy, accelerator: "Accelerator") -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else the engine is a process of its own
        from vllm import LLM

        self.policy = policy
        self.llm = LLM(
            model=policy.base_name,
            dtype=config.model.dtype,
            max_model_len=longest(config),
            gpu_memory_utilization=config.generation.gpu_memory_utilization,
            max_num_batched_tokens=MAX_BATCHED_TOKENS,
            distributed_executor_backend="uni" if accelerator.num_processes == 1 else "external_launcher",
            seed=accelerator.process_index,
            logprobs_mode="processed_logprobs",  # at the temperature that is sampled at
            trust_remote_code=config.model.trust_remote_code,
        )

    def load(self) -> None:
        weights = merged_weights(self.policy.language_model)
        self.llm.apply_model(lambda model: model.load_weights(weights))
        self.llm.reset_prefix_cache()

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        from vllm import SamplingParams

        outputs = self.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            [SamplingParams(**each) for each in settings],
            use_tqdm=False,
        )
        firsts = [output.outputs[0] for output in outputs]
        return [
            (list(o.token_ids), [at[token].logprob for token, at in zip(o.token_ids, o.logprobs, strict=True)])
            for o in firsts
        ]


@torch.no_grad()
def merged_weights(model: "PreTrainedModel") -> Iterator[tuple[str, Tensor]]:
    """The policy's weights with its adapters merged in, one after the other, named as in the model without adapters.

    Bit for bit those within `rlhf.policy.merged.merged`, but the model itself is not touched.
    """
    for name, parameter in model.named_parameters():
        layer, _, leaf = name.rpartition(".base_layer.")
        if layer and leaf == "weight":
            delta = model.get_submodule(layer).get_delta_weight(POLICY_ADAPTER)
            yield f"{layer}.{leaf}", (parameter.data + delta).to(parameter.dtype)
        elif ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter.data


def require_vllm() -> None:
    """Raise UserError unless vLLM is installed."""
    require_extra("vllm", "generation.engine vllm (which needs an NVIDIA GPU; the other one is transformers)")
