"""Sampling whole episodes: the model speaks, the environment answers, until it is over."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rlhf.config import DataConfig, EnvironmentSpec, EvaluateConfig, PPOConfig, SamplingConfig
from rlhf.data.examples import TokenizedExample
from rlhf.data.new_turns import new_turn_ids
from rlhf.data.parsing import Example
from rlhf.data.rendering import Rendering
from rlhf.environments.conversation import Conversation, padded, turns_of
from rlhf.environments.stepping import Environments
from rlhf.errors import EpisodeError, UserError
from rlhf.models.shape import context_length
from rlhf.sampling.decode import Sampled
from rlhf.sampling.responses import Responses, collate_responses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Sampler = Callable[[list[list[int]], list[int] | None], Sampled]
"""Continues rows of token ids, each by at most so many tokens: by sampling.max_new_tokens where nobody says."""


class Episodes:
    """Plays episodes between a model and environments of one kind.

    The conversation is kept as token ids. The chat template writes the first messages, and after that only what is new,
    see `new_turn_ids`: what was sampled is never tokenized again.

    Args:
        spec: The environment and its limits.
        data: How conversations are put to the model.
        sampling: max_new_tokens is the limit of a turn.
        tokenizer: Of the model.
        context: Tokens that the model can read.
    """

    def __init__(
        self,
        spec: EnvironmentSpec,
        data: DataConfig,
        sampling: SamplingConfig,
        tokenizer: "PreTrainedTokenizerFast",
        context: int,
    ) -> None:
        self.spec, self.environments = spec, Environments(spec)
        self.rendering = replace(Rendering.of(data), as_chat=True)
        self.turn_limit, self.tokenizer = sampling.max_new_tokens, tokenizer
        self.limit = min(context, spec.max_tokens or context)

    def play(self, prompts: list[TokenizedExample], sample: Sampler) -> Responses:
        """An episode for each row of data, of which the prompts' examples are read; all take a turn at a time.

        Raises EpisodeError for an environment that fails or whose first messages leave no room for an answer.
        """
        conversations = self.begin(prompts)
        for turn in range(1, self.spec.max_turns + 1):
            going = [(number, each) for number, each in enumerate(conversations) if each.ending is None]
            if not going:
                break
            self.take_turn(turn, going, sample)
        return collate(conversations, self.tokenizer)

    def begin(self, prompts: list[TokenizedExample]) -> list[Conversation]:
        """The conversations with their first messages."""
        examples = [prompt.example for prompt in prompts]
        opened = self.environments.open(examples)
        given = [self.rendering.put(tuple(messages)) for _, messages in opened]
        seen = [replace(example, given=prompt) for example, prompt in zip(examples, given, strict=True)]
        tools = [getattr(each, "tools", None) or row.tools for (each, _), row in zip(opened, seen, strict=True)]
        rows = self.rendering.ids(self.tokenizer, given, tools, [example.origin for example in seen])
        for number, ids in enumerate(rows):
            if len(ids) >= self.limit:
                raise EpisodeError(
                    f"environment {self.spec.name!r} begins with {len(ids)} tokens in episode {number}; a conversation "
                    f"has at most {self.limit}: shorten its first messages, or raise environment.max_tokens"
                )
        return [
            Conversation(TokenizedExample(example, ids, None), environment)
            for example, ids, (environment, _) in zip(seen, rows, opened, strict=True)
        ]

    def take_turn(self, turn: int, going: list[tuple[int, Conversation]], sample: Sampler) -> None:
        """One turn of the model in each conversation, and the answer to it."""
        numbers, conversations = [number for number, _ in going], [each for _, each in going]
        rows = [each.all_ids for each in conversations]
        sampled = sample(rows, [min(self.turn_limit, self.limit - len(row)) for row in rows])
        turns = turns_of(sampled, self.tokenizer)
        for each, said in zip(conversations, turns, strict=True):
            each.say(said)
            each.device = sampled.response_ids.device
        texts = [(each.environment, said.text) for each, said in zip(conversations, turns, strict=True)]
        steps = self.environments.step(texts, numbers, turn)
        for each, step, said in zip(conversations, steps, turns, strict=True):
            each.take(step, said, is_last=turn == self.spec.max_turns)
        answered = [
            (each, list(step.observation))
            for each, step in zip(conversations, steps, strict=True)
            if each.ending is None and not isinstance(step.observation, str)
        ]
        ids = new_turn_ids(self.tokenizer, [turns for _, turns in answered], self.rendering.chat_template_kwargs)
        for (each, observation), added in zip(answered, ids, strict=True):
            each.hear(observation, added, self.limit)


def episodes_of(
    config: PPOConfig | EvaluateConfig, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast"
) -> Episodes | None:
    """What plays the episodes of a config, if it has an environment."""
    if config.environment is None:
        return None
    return Episodes(config.environment, config.data, config.sampling, tokenizer, context_length(model))


def respond(
    prompts: list[TokenizedExample],
    sample: Sampler,
    tokenizer: "PreTrainedTokenizerFast",
    episodes: Episodes | None = None,
) -> Responses:
    """A response to each prompt or, with an environment, an episode."""
    if episodes is not None:
        return episodes.play(prompts, sample)
    return collate_responses(prompts, sample([prompt.prompt_ids for prompt in prompts], None), tokenizer)


def collate(conversations: list[Conversation], tokenizer: "PreTrainedTokenizerFast") -> Responses:
    """Finished conversations as responses, whose mask has a gap wherever the environment spoke."""
    device = conversations[0].device
    sampled = Sampled(
        padded([each.ids for each in conversations], tokenizer.eos_token_id, device),
        padded([each.is_own for each in conversations], False, device),
        torch.tensor([each.ending == "done" for each in conversations], device=device),
        padded([each.logprobs for each in conversations], 0.0, device),
    )
    responses = collate_responses([each.prompt for each in conversations], sampled, tokenizer)
    return replace(
        responses,
        turn_rewards=padded([each.paid for each in conversations], 0.0, device),
        episodes=[each.episode() for each in conversations],
    )


def on_its_own(spec: EnvironmentSpec) -> TokenizedExample:
    """The row of an environment that takes no data."""
    return TokenizedExample(Example("", None, {}, f"environment {spec.name}"), [], None)


def seeded(prompts: list[TokenizedExample], occasion: str) -> list[TokenizedExample]:
    """The prompts with a column `seed` for their episodes; one that the data has stays.

    Seeds follow from the occasion and the place in the list, and no random number is used up. Raises UserError for a
    column that would be mistaken for what rewards receive.
    """
    for prompt in prompts:
        if "episode" in prompt.example.columns:
            raise UserError(
                f"{prompt.example.origin}: a column is called episode, as is what rewards receive; rename it"
            )

    return [replace(p, example=seeded_example(p.example, occasion, number)) for number, p in enumerate(prompts)]


def seeded_example(example: Example, occasion: str, number: int) -> Example:
    """A row with a column `seed`, if it has none."""
    digest = hashlib.blake2b(f"{occasion} {number}".encode(), digest_size=4).digest()
    return replace(example, columns={"seed": int.from_bytes(digest) >> 1, **example.columns})
