"""Environments for the tests, and samplers whose words are known."""

import asyncio
import time

import torch

from rlhf.config import DataConfig, EnvironmentSpec, SamplingConfig
from rlhf.environments import Step
from rlhf.environments.episodes import Episodes
from rlhf.sampling.decode import Sampled


class CountE:
    """One step: the reward of `tiny_runs.count_e` as an environment."""

    def reset(self, prompt, **columns):
        return prompt

    def step(self, text):
        return Step("", text.count("e") / max(1, len(text)), done=True)


class Die:
    """One step, which earns and measures what the seed has rolled."""

    def reset(self, seed):
        self.eyes = float(1 + seed % 6)
        return "roll"

    def step(self, text):
        return Step("", self.eyes, done=True, metrics={"eyes": self.eyes})


class Echo:
    """Says back what it heard, `turns` times; pays 1, 2, 3, ... or what `pays` says; keeps what it was given."""

    def __init__(self, turns=3, pays=None, role="user"):
        self.turns, self.pays, self.role, self.heard = turns, pays, role, []

    def reset(self, prompt, seed, **columns):
        self.seed, self.columns = seed, columns
        return prompt

    def step(self, text):
        self.heard.append(text)
        n = len(self.heard)
        said = [{"role": self.role, "content": f"You said {len(text)} characters."}]
        return Step(said, float(n) if self.pays is None else self.pays, n == self.turns, {"heard": float(n)})


class AsyncEcho(Echo):
    """The same as coroutines, each of which waits a moment."""

    async def reset(self, prompt, seed):
        await asyncio.sleep(0.01)
        return super().reset(prompt, seed)

    async def step(self, text):
        await asyncio.sleep(0.01)
        return super().step(text)


class Faulty(Echo):
    """Fails in its second turn in the way that it is told."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def step(self, text):
        step = super().step(text)
        if len(self.heard) < 2:
            return step
        return {
            "raises": lambda: 1 / 0,
            "hangs": lambda: time.sleep(30),
            "nonsense": lambda: ("higher", 1.0),
            "nothing": lambda: None,
            "nan": lambda: Step("go on", float("nan")),
            "text as reward": lambda: Step("go on", "much"),
            "no observation": lambda: Step(""),
            "assistant": lambda: Step([{"role": "assistant", "content": "I"}]),
            "no role": lambda: Step([{"content": "I"}]),
            "done as text": lambda: Step("go on", done="no"),
            "metrics": lambda: Step("go on", metrics=3),
            "metric": lambda: Step("go on", metrics={"x": None}),
        }[self.fault]()


class HangsAsync(Echo):
    async def step(self, text):
        await asyncio.sleep(30)


class NoStep:
    def reset(self):
        return "hello"


NOT_CALLABLE = 3


def episodes_of(tokenizer, name="talkers.Echo", context=96, max_new_tokens=6, data=None, **options) -> Episodes:
    spec = EnvironmentSpec(name=name, **options)
    return Episodes(spec, data or DataConfig(), SamplingConfig(max_new_tokens=max_new_tokens), tokenizer, context)


def saying(*turns, ended=None):
    """A sampler that says these token ids, turn after turn, in every row; `heard` holds what it was given."""
    heard = []

    def sample(rows, limits):
        ids = turns[len(heard)]
        heard.append((rows, limits))
        rows_of_ids = [ids[:limit] for limit in limits]
        width = max(map(len, rows_of_ids))
        response_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows_of_ids])
        mask = torch.tensor([[t < len(row) for t in range(width)] for row in rows_of_ids])
        is_whole = torch.tensor([len(row) == len(ids) for row in rows_of_ids])
        return Sampled(response_ids, mask, is_whole if ended is None else torch.tensor([ended] * len(rows)), None)

    sample.heard = heard
    return sample
