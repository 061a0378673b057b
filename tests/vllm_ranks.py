"""What one of two processes does in tests/test_vllm.py: an update with either mode of vLLM; argv is the folder."""

import json
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
import vllm_standin
from tiny_runs import make_config

from rlhf.config.generation import GenerationConfig
from rlhf.rewards import RewardSum
from rlhf.sampling.vllm_engine import merged_weights
from rlhf.stages.ppo import build_trainer, launch

torch.set_num_threads(1)
vllm_standin.install()
given = json.loads((Path(sys.argv[1]) / "config.json").read_text())


def run(generation: GenerationConfig, served: vllm_standin.Serve | None) -> None:
    """Two updates of five prompts on two ranks: shares of two and three; 4 samples of each."""
    config = make_config(given["model"], given["data"], generation=generation, batch_size=20, num_generations=4)
    config = replace(config, data=replace(config.data, max_prompt_tokens=64))
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards), launch(config))
    ranks, mode = trainer.ranks, generation.mode
    asked = []
    generate = trainer.vllm.engine.generate
    trainer.vllm.engine.generate = lambda prompts, settings: asked.extend(settings) or generate(prompts, settings)
    load = trainer.vllm.engine.load
    trainer.vllm.engine.load = lambda: time.sleep(0.5 * ranks.is_first) or load()
    for _ in range(2):
        update = trainer.update()
        assert len(update.rollout) == 20
        assert abs(update.metrics["policy/ratio_first_minibatch"] - 1.0) < 1e-6
    everybody = ranks.exchange(lambda: [each["seed"] for each in asked])
    assert [len(seeds) for seeds in everybody] == [2 * 8, 2 * 12]
    assert len({seed for seeds in everybody for seed in seeds}) == 40
    sampled_with = engine_weights(trainer, served)
    trainer.vllm.load_policy()  # in step, on both ranks, after as many loads as there were updates
    now = dict(merged_weights(trainer.policy.language_model))
    if sampled_with is not None:
        assert any(not torch.equal(sampled_with[name], now[name]) for name in now)
        loaded = engine_weights(trainer, served)
        assert all(torch.equal(loaded[name], now[name]) for name in now)
    (Path(sys.argv[1]) / f"done_{mode}_{ranks.index}").touch()
    ranks.exchange(lambda: None)  # the server lives in the first process


def fail_ahead(generation: GenerationConfig) -> None:
    """The second rank's share of the second batch fails while the first one is learned from: both hear of it."""
    config = make_config(given["model"], given["data"], generation=generation, importance_correction="token")
    config = replace(config, data=replace(config.data, max_prompt_tokens=64))
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards), launch(config))
    ranks, generate, calls = trainer.ranks, trainer.vllm.engine.generate, []

    def failing(prompts, settings):
        calls.append(prompts)
        if not ranks.is_first and len(calls) == 2:
            raise RuntimeError("the server is gone")
        return generate(prompts, settings)

    trainer.vllm.engine.generate = failing
    trainer.update()
    try:
        trainer.update()
    except Exception as error:
        heard = str(error)
    assert "the server is gone" in heard
    assert heard.startswith("rank 1 failed" if ranks.is_first else "cannot use vllm")
    (Path(sys.argv[1]) / f"done_ahead_{ranks.index}").touch()
    ranks.exchange(lambda: None)


def engine_weights(trainer, served):
    """The weights that this rank's vLLM has; None where it is in another process."""
    llm = getattr(trainer.vllm.engine, "llm", None) or getattr(served, "llm", None)
    return None if llm is None else {name: p.clone() for name, p in llm.worker.model.named_parameters()}


if __name__ == "__main__":
    from rlhf.parallel.launch import join_processes
    from rlhf.parallel.ranks import Ranks

    run(GenerationConfig(engine="vllm"), None)
    ranks = Ranks.of(join_processes(2))
    served = vllm_standin.Serve(given["model"]) if ranks.is_first else None
    [url, _] = ranks.exchange(lambda: served.url if served else None)
    from trl.generation.vllm_client import VLLMClient

    vllm_standin.send_from_cpu(VLLMClient)
    run(GenerationConfig(engine="vllm", mode="server", server_url=url), served)
    if served is not None:  # nobody samples before the weights of an update are there, also if the first rank is slow
        calls = [call for call in served.requests if call in ("/v1/completions", "/finish_weight_update")]
        sampled = [len(list(group)) for call, group in groupby(calls) if call == "/v1/completions"]
        assert sampled == [20, 20], sampled
        assert calls[0] == calls[-1] == "/finish_weight_update"
    fail_ahead(GenerationConfig(engine="vllm", mode="server", server_url=url, overlap=True))
