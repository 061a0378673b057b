"""Rollouts through vLLM itself, where it is installed: bash scripts/test_vllm.sh installs the one for CPUs."""

import dataclasses
import importlib.util
import os
import socket
import subprocess
import sys
import time

import pytest
import yaml
from processes import launch
from small_llama import save_small_llama
from tiny_runs import make_config

from rlhf.config import DataConfig
from rlhf.config.generation import GenerationConfig
from rlhf.rewards import RewardSum
from rlhf.runs.files import read_jsonl
from rlhf.runs.folder import as_plain
from rlhf.stages.ppo import build_trainer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
ROUNDING = 1e-4
"""Nats per token between vLLM and the policy, both in float32."""


@pytest.fixture
def weights_stay(monkeypatch):
    """On a CPU vLLM packs its weights and throws the originals away, so that no new ones could be loaded."""
    import vllm._custom_ops

    monkeypatch.setattr(vllm._custom_ops, "_supports_onednn", False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.fixture
def served(tmp_path):
    """The address of a server with a small model, and its folder; what it prints is in server.log."""
    folder = save_small_llama(tmp_path / "llama")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", "96", "--generation-config", "vllm"]
    command += ["--logprobs-mode", "processed_logprobs", "--enable-lora", "--max-lora-rank", "8", "--enforce-eager"]
    env = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    printed = tmp_path / "server.log"
    with open(printed, "w") as log, subprocess.Popen(command, env=env, stdout=log, stderr=log) as server:
        while server.poll() is None and "startup complete" not in printed.read_text():
            time.sleep(1)
        assert server.poll() is None, printed.read_text()[-3000:]
        yield f"http://127.0.0.1:{port}", folder
        server.terminate()


def test_every_update_samples_from_the_policy_of_now(tmp_path, pairs, weights_stay):
    generation = GenerationConfig(engine="vllm", gpu_memory_utilization=0.1)
    check(tmp_path, pairs, save_small_llama(tmp_path / "llama"), generation)


def test_a_server_samples_from_the_adapters_of_now(tmp_path, pairs, served):
    url, folder = served
    check(tmp_path, pairs, folder, GenerationConfig(engine="vllm", mode="server", server_url=url, send="adapters"))


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_two_processes_sample_their_shares_from_the_policy_of_now(tmp_path, pairs, mode, request):
    """Colocated, each has an engine of its own; the server is one for both."""
    if mode == "server":
        url, folder = request.getfixturevalue("served")
        generation = GenerationConfig(engine="vllm", mode="server", server_url=url, send="adapters")
    else:
        folder, generation = save_small_llama(tmp_path / "llama"), GenerationConfig(engine="vllm")
    data = DataConfig(train=pairs, max_prompt_tokens=64)
    config = make_config(folder, pairs, generation=generation, learning_rate=3e-2, batch_size=12, num_generations=4)
    config = dataclasses.replace(config, data=data, output_dir=str(tmp_path / "run"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_plain(config)))
    done = launch("tests/real_vllm_ranks.py", "ppo", str(tmp_path / "config.yaml"), VLLM_CPU_KVCACHE_SPACE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    print([row["sampling/ratio_max"] for row in metrics], [row["objective/kl"] for row in metrics])
    assert len(metrics) == 4
    assert all(abs(row["sampling/ratio_max"] - 1) < ROUNDING for row in metrics)
    assert abs(metrics[-1]["objective/kl"]) > 100 * ROUNDING


def check(tmp_path, pairs, model, generation):
    """What vLLM says of its samples is what the policy says of them, while the policy moves away from the reference."""
    config = make_config(model, pairs, generation=generation, learning_rate=3e-2)
    data = DataConfig(train=pairs, max_prompt_tokens=64)
    config = dataclasses.replace(config, data=data, output_dir=str(tmp_path / "run"))
    trainer = build_trainer(config, RewardSum.from_specs(config.rewards))
    moved, apart = [], []
    for _ in range(4):
        rollout, _, metrics = trainer.update()
        apart.append(float((rollout.old_logprobs - rollout.sampler_logprobs).abs().max()))
        assert metrics["policy/ratio_first_minibatch"] == pytest.approx(1.0, abs=1e-6)
        assert rollout.has_eos.logical_or(rollout.lengths == config.sampling.max_new_tokens).all()
        moved.append(float((rollout.old_logprobs - rollout.ref_logprobs).abs().max()))
    print(f"apart {apart}, moved {moved}")
    assert max(apart) < ROUNDING
    assert moved[0] == 0
    assert moved[-1] > 1000 * ROUNDING  # an engine that kept the first weights would be found out
