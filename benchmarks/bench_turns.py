"""What it saves that a conversation's next turn reads only what is new in it: the same rollouts with and without.

    python benchmarks/bench_turns.py [--model FOLDER] [--episodes 64] [--turns 3] [--prompt 48] [--answer 66]
        [--observation 36] [--threads 1] [--rounds 3]

Episodes of `turns` turns of exactly `answer` tokens each, sampled by the decode loop with new adapters. By default they
are as many as in configs/environments/react_repair_ppo.yaml, with the mean lengths of its repair traces in tokens of
SmolLM2. The model is a folder, or a random Llama of four layers. Both ways alternate in one process; the last line is
JSON.
"""

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING

import torch

from rlhf.cli import quiet_libraries
from rlhf.config import LoraConfig, ModelConfig, SamplingConfig
from rlhf.models.load import load_causal_lm
from rlhf.policy.merged import decoding
from rlhf.policy.policy import Policy
from rlhf.sampling.decode import sample
from rlhf.sampling.trial import continues
from rlhf.sampling.turn_cache import TurnCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEVER = -1
"""A token that ends no response."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model")
    for name, default in {"episodes": 64, "turns": 3, "prompt": 48, "answer": 66, "observation": 36}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    model = load_causal_lm(ModelConfig(name_or_path=arguments.model)) if arguments.model else random_llama()
    policy = Policy.with_lora(model, LoraConfig(r=16, alpha=32), "shared")
    assert continues(policy), f"{type(model).__name__} reads everything again"
    seconds: dict[str, list[float]] = {"again": [], "cached": []}
    for _ in range(arguments.rounds):
        for name, taken in seconds.items():
            taken.append(roll_out(policy, arguments, TurnCache() if name == "cached" else None))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"again {medians['again']:.2f} s, cached {medians['cached']:.2f} s of processor time per rollout (medians)")
    print(json.dumps({"ratio": medians["again"] / medians["cached"], "seconds": seconds} | vars(arguments)))


def random_llama() -> "PreTrainedModel":
    """Four layers of SmolLM2's kind, half as wide."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 288, "intermediate_size": 768, "num_attention_heads": 9, "num_key_value_heads": 3}
    return LlamaForCausalLM(LlamaConfig(vocab_size=8192, num_hidden_layers=4, max_position_embeddings=2048, **shape))


def roll_out(policy: Policy, arguments: argparse.Namespace, turns: TurnCache | None) -> float:
    """Processor time of a batch of episodes, in seconds."""
    generator, vocabulary = torch.Generator().manual_seed(0), policy.language_model.config.vocab_size
    sampling = SamplingConfig(max_new_tokens=arguments.answer)

    def drawn(n_tokens: int) -> list[list[int]]:
        return torch.randint(vocabulary, (arguments.episodes, n_tokens), generator=generator).tolist()

    rows = drawn(arguments.prompt)
    begun = time.process_time()
    for _ in range(arguments.turns):
        with decoding(policy, len(rows)):
            said = sample(policy.language_model, rows, sampling, NEVER, generator, turns=turns).response_ids.tolist()
        rows = [[*row, *own, *heard] for row, own, heard in zip(rows, said, drawn(arguments.observation), strict=True)]
    return time.process_time() - begun


if __name__ == "__main__":
    main()
