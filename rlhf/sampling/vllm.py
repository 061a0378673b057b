"""Rollouts through vLLM: before every update it is sent the policy's merged weights, then it decodes the batch.

Every response gets a seed of its own and ends where the decode loop of `rlhf.sampling.decode` would have ended it.
vLLM's log-probabilities say how far its arithmetic is from the policy's; those that are trained on are the policy's.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf.config import PPOConfig, SamplingConfig
from rlhf.config.checks import require
from rlhf.parallel.launch import said_once
from rlhf.parallel.ranks import Ranks
from rlhf.policy.merged import require_mergeable
from rlhf.policy.policy import Policy
from rlhf.sampling.decode import Sampled, stop_strings
from rlhf.sampling.stopping import stop_token_ids
from rlhf.sampling.vllm_engine import Colocated, Engine, Response, in_one_line, require_vllm
from rlhf.sampling.vllm_server import AdapterServer, WeightServer

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerFast


class VLLMSampler:
    """Samples the training batches with vLLM in place of the decode loop.

    Args:
        config: `generation` says where vLLM runs.
        policy: Whose weights it gets; its device is that of the responses.
        tokenizer: With the policy it says which tokens end responses.
        accelerator: Knows the other processes.

    Raises UserError if vLLM is not installed, does not start or fails later, or would have to get the weights of a base
    that is divided among processes.
    """

    @said_once()
    def __init__(
        self,
        config: PPOConfig,
        policy: Policy,
        tokenizer: "PreTrainedTokenizerFast",
        accelerator: "Accelerator",
    ) -> None:
        require_vllm()
        require(
            not policy.divided_trunks or config.generation.send == "adapters",
            "generation.engine is vllm, but accelerate was told to divide the base with fsdp, and no process has whole "
            "weights to send; use a server with generation.send: adapters, which needs lora, or "
            "configs/accelerate/multi_gpu.yaml",
        )
        if not policy.divided_trunks:
            require_mergeable(policy)
        self.sampling, self.tokenizer, self.policy = config.sampling, tokenizer, policy
        self.is_stop = stop_strings(config.sampling, tokenizer)
        self.url = config.generation.server_url
        self.engine = start_engine(config, policy, accelerator)
        self.load_policy()  # a server may still have the weights of another run

    def load_policy(self) -> None:
        """Send vLLM the weights of the policy as it is now; all ranks have to call it."""
        with in_one_line(self.url):
            self.engine.load()

    def continued(self, generator: torch.Generator, rows: list[list[int]], limits: list[int] | None = None) -> Sampled:
        """What the policy says behind each row of token ids, whose seeds are drawn from `generator`.

        `limits` are tokens for each row in place of max_new_tokens. A conversation that goes on is sent as a whole; of
        what vLLM has read before it has the keys and values still (prefix caching).
        """
        seeds = torch.randint(2**31, (len(rows),), generator=generator, device=generator.device).tolist()
        stop_ids = stop_token_ids(self.policy.language_model, self.tokenizer)
        ends = endings(self.sampling, stop_ids)
        settings = [ends | {"seed": seed} for seed in seeds]
        if limits is not None:
            settings = [each | {"max_tokens": limit} for each, limit in zip(settings, limits, strict=True)]
        with in_one_line(self.url):
            said = self.engine.generate(rows, settings)
        return as_sampled(said, stop_ids, self.is_stop, self.policy.device)


def start_engine(config: PPOConfig, policy: Policy, accelerator: "Accelerator") -> Engine:
    """Start vLLM in this process, or meet the server; raises UserError with the reason if that fails."""
    url = config.generation.server_url
    with in_one_line(url):
        if url is None:
            engine: Engine = Colocated(config, policy, accelerator)
            accelerator.wait_for_everyone()  # one process reads the weights while others wait for it
            return engine
        if config.generation.send == "adapters":
            return AdapterServer(url, policy, Ranks.of(accelerator), config.output_dir)
        return WeightServer(url, policy, Ranks.of(accelerator), accelerator.device)


def endings(sampling: SamplingConfig, stop_ids: list[int]) -> dict[str, Any]:
    """SamplingParams under which a response ends where ours would, and comes with its log-probabilities."""
    return {
        "temperature": sampling.temperature,
        "max_tokens": sampling.max_new_tokens,
        "ignore_eos": True,  # what it takes for EOS is among stop_ids where it is ours
        "stop_token_ids": stop_ids,
        "stop": sampling.stop,
        "skip_special_tokens": False,  # in the text that vLLM looks for stop strings in
        "logprobs": 0,  # of the token that was sampled, and no other
    }


def as_sampled(
    responses: list[Response],
    stop_ids: list[int],
    is_stop: Callable[[Tensor], Tensor] | None,
    device: torch.device,
) -> Sampled:
    """Responses of vLLM as the decode loop would have returned them."""
    rows = [torch.tensor(ids) for ids, _ in responses]
    response_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=stop_ids[0])
    logprobs = nn.utils.rnn.pad_sequence([torch.tensor(said) for _, said in responses], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    response_mask = torch.arange(response_ids.shape[1]) < lengths.unsqueeze(-1)
    ended = [int(row[-1]) in stop_ids or (is_stop is not None and bool(is_stop(row[None]))) for row in rows]
    tensors = (response_ids, response_mask, torch.tensor(ended), logprobs)
    return Sampled(*(x.to(device) for x in tensors))
