"""vLLM as a server (`vllm serve`): all processes send it their prompts, and the first one the weights."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch

from rlhf.config.checks import require
from rlhf.parallel.ranks import Ranks
from rlhf.policy.policy import Policy
from rlhf.policy.value_head import POLICY_ADAPTER
from rlhf.sampling.vllm_engine import Response, merged_weights

PATIENCE = 240.0
"""Seconds to wait for a server that is still loading its model."""
SIGN_OF_LIFE = 10.0
"""Seconds in which a server takes a connection, and says that it is well."""
SILENCE = 3600.0
"""Seconds without a word to anything else after which it is given up: a batch that waits its turn may take long."""
BROKEN_CONNECTION = 5.0
"""Seconds in which a prompt is sent again. Less than a server takes to start: a new one has the weights of the base."""
NEUTRAL = {"n": 1, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Said in every request: what is left out a server takes from the model's generation_config.json."""


class Server:
    """What is asked of a server, and answered, in JSON.

    Attributes:
        served: The base model, as the server describes it.
        model: The name under which the server knows what it is to sample from.
    """

    def __init__(self, url: str, ranks: Ranks) -> None:
        self.ranks = ranks
        self.http = httpx.Client(base_url=url, limits=httpx.Limits(max_connections=None))
        self._ask("GET", "/health", patience=PATIENCE, silence=SIGN_OF_LIFE)
        self.served = self._ask("GET", "/v1/models")["data"][0]
        self.model: str = self.served["id"]

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        patience: float = 0.0,
        silence: float = SILENCE,
    ) -> Any:
        """The JSON, or the text, of an answer; raises RuntimeError with what the server says is wrong.

        Where no answer comes within `silence` seconds it asks again, for `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                timeout = httpx.Timeout(silence, connect=SIGN_OF_LIFE)
                answer = self.http.request(method, path, json=body, timeout=timeout)
                break
            except httpx.TransportError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(1.0)
        if answer.is_error:
            raise RuntimeError(f"{path} answers {answer.status_code}: {' '.join(answer.text.split())[:200]}")
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Response]:
        """One request each, for a request has one seed; with it, it may be sent twice."""

        def ask(ids: list[int], each: dict[str, Any]) -> Response:
            body = NEUTRAL | each | {"model": self.model, "prompt": ids, "return_token_ids": True}
            [choice] = self._ask("POST", "/v1/completions", body, patience=BROKEN_CONNECTION)["choices"]
            return choice["token_ids"], choice["logprobs"]["token_logprobs"]

        with ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            return list(pool.map(ask, prompts, settings))


class WeightServer(Server):
    """Gets the merged weights over NCCL, through TRL's client: `vllm serve` in its development mode."""

    def __init__(self, url: str, policy: Policy, ranks: Ranks, device: torch.device) -> None:
        super().__init__(url, ranks)
        self.policy = policy
        if ranks.is_first:
            from rlhf.models.private_names import VLLMClient

            self.client = VLLMClient(base_url=url)
            self.client.init_communicator(device=device)

    def load(self) -> None:
        self.ranks.first(self._send)

    def _send(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the weights are read on streams that do not wait for the optimizer's
        model = self.policy.language_model
        about = [(name, str(x.dtype).removeprefix("torch."), list(x.shape)) for name, x in merged_weights(model)]
        self.client.update_named_params(about, merged_weights(model))
        self.client.reset_prefix_cache()


class AdapterServer(Server):
    """Loads the adapters from a folder that it shares with this process: megabytes instead of all weights.

    Every version has a name of its own, so that no prefix of an earlier one is found in the cache.
    """

    def __init__(self, url: str, policy: Policy, ranks: Ranks, output_dir: str) -> None:
        super().__init__(url, ranks)
        base, served = policy.base_name, self.served["root"]
        require(
            base == served or (Path(base).is_dir() and Path(base).resolve() == Path(served).resolve()),
            f"the vllm server at {url} serves {served}, but the adapters belong to {base}: start it with that, by its "
            "whole path, or set generation.send: weights",
        )
        self.policy = policy
        self.folder = Path(output_dir).resolve() / "vllm_adapters"
        self.sent: Path | None = None
        ranks.first(lambda: shutil.rmtree(self.folder, ignore_errors=True))  # what a run that was killed has left

    def load(self) -> None:
        self.model = self.ranks.first(self._send)

    def _send(self) -> str:
        last, self.sent = self.sent, self.folder / f"policy-{time.time_ns()}"
        peft_model = self.policy.wrapper.pretrained_model
        peft_model.save_pretrained(str(self.sent), selected_adapters=[POLICY_ADAPTER], save_embedding_layers=False)
        self._ask("POST", "/v1/load_lora_adapter", {"lora_name": self.sent.name, "lora_path": str(self.sent)})
        if last is not None:
            self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": last.name})
            shutil.rmtree(last, ignore_errors=True)
        return self.sent.name
