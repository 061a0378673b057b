"""Where vLLM runs, and how it gets the policy's weights.

Engine, memory and the transport of the weights are TRL's (`trl.generation`, written for vLLM 0.19 to 0.27.1); what is
sent are exact merged weights, which TRL's own way would cost us the reference.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rlhf.config import PPOConfig
from rlhf.errors import UserError, with_kind
from rlhf.extras import require_extra
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SERVER_PATIENCE = 240.0
"""Seconds to wait for a server that is still loading its model."""


Response = tuple[list[int], list[float]]
"""Token ids, and the log-probability of each under the distribution that was sampled from."""


class Engine(Protocol):
    """Where vLLM runs."""

    def load(self) -> None:
        """Send it the weights of the policy as it is now."""

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        """One response to each prompt; the settings of each are vLLM's SamplingParams, with logprobs 0."""


def start_engine(
    config: PPOConfig,
    policy: Policy,
    tokenizer: "PreTrainedTokenizerFast",
    accelerator: "Accelerator",
) -> Engine:
    """Start vLLM in this process, or meet the server; raises UserError with the reason if that fails."""
    settings, url = config.generation, config.generation.server_url
    with in_one_line(url):
        from rlhf.models.private_names import VLLMGeneration

        generation = VLLMGeneration(
            MergedWeights(policy),
            accelerator,
            tokenizer,
            mode=settings.mode,
            server_base_url=url,
            server_timeout=SERVER_PATIENCE,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            max_model_length=longest(config),
            trust_remote_code=config.model.trust_remote_code,
        )
        engine: Engine = Colocated(generation) if url is None else Server(generation, Ranks.of(accelerator), url)
    return engine


@contextlib.contextmanager
def in_one_line(url: str | None) -> Iterator[None]:
    """Raise UserError for whatever fails between here and vLLM, a server at that address or in this process.

    vLLM, its server and TRL raise whatever they please, some of it a bare Exception; another version of vLLM than TRL
    was written for may fail at the import, at the first weights that it is sent, or later.
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
    """An engine of this process's own, on its GPU."""

    def __init__(self, generation: Any) -> None:
        self.generation = generation

    def load(self) -> None:
        self.generation.sync_weights()

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        from vllm import SamplingParams

        outputs = self.generation.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            [SamplingParams(**each) for each in settings],
            use_tqdm=False,
        )
        firsts = [output.outputs[0] for output in outputs]
        return [
            (list(o.token_ids), [at[token].logprob for token, at in zip(o.token_ids, o.logprobs, strict=True)])
            for o in firsts
        ]


class Server:
    """A server that all processes send their prompts to; the first one sends the weights."""

    def __init__(self, generation: Any, ranks: Ranks, url: str) -> None:
        from rlhf.models.private_names import VLLMClient

        self.generation, self.ranks = generation, ranks
        self.client = generation.vllm_client if ranks.is_first else VLLMClient(base_url=url)

    def load(self) -> None:
        self.ranks.first(self._send)

    def _send(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the weights are read on streams that do not wait for the optimizer's
        self.generation.sync_weights()

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        def ask(ids: list[int], each: dict[str, Any]) -> Response:  # one request each: a request has one seed
            answer = self.client.generate([ids], generation_kwargs=each)
            return answer["completion_ids"][0], [said[0] for said in answer["logprobs"][0]]

        with ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            return list(pool.map(ask, prompts, settings))


class MergedWeights(nn.Module):
    """The policy in the shape in which TRL reads a model without adapters.

    TRL would merge PEFT's adapters into the base and take them out again, after which the base, our reference, is no
    longer the same bits.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.name_or_path = policy.base_name
        self.read = lambda: merged_weights(policy.language_model)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        return self.read()


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
