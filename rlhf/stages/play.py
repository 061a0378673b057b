"""The `play` stage: an environment in the terminal, played by the one who sits there, or by a model."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from rlhf.config import EnvironmentSpec, PlayConfig
from rlhf.data.examples import as_seen, load_held_out, load_training
from rlhf.data.messages import Message
from rlhf.data.parsing import Example
from rlhf.data.rendering import Rendering
from rlhf.environments.episodes import Episodes, on_its_own, seeded_example
from rlhf.environments.stepping import Environments
from rlhf.errors import visible
from rlhf.models.precision import chooses_dtype
from rlhf.models.shape import context_length
from rlhf.sampling.episode import ENDINGS
from rlhf.sampling.responses import continued
from rlhf.sampling.turn_cache import TurnCache
from rlhf.stages.evaluate import policy_of

FENCE = "```"
HOW = "You are the model. A turn is a line; what begins with ``` goes on to the closing ```. Ctrl-D ends the game."


@chooses_dtype
def run_play(config: PlayConfig) -> list[float]:
    """Play episodes in turn and print what is said and paid; returns what each of them earned."""
    examples = [seeded_example(example, f"play {config.seed}", n) for n, example in enumerate(rows(config))]
    if config.model is None:
        print(HOW)
        return list(by_hand(config.environment, examples))
    return list(by_model(config, examples))


def rows(config: PlayConfig) -> list[Example]:
    """A row of data per episode; those of an environment that begins on its own where there is no data."""
    if config.data.train is None and config.data.eval is None:
        return [on_its_own(config.environment).example] * config.episodes
    rendering = replace(Rendering.of(config.data), as_chat=True)
    found = [as_seen(example, rendering) for example in load_held_out(config.data) or load_training(config.data)]
    return [found[number % len(found)] for number in range(config.episodes)]


def by_hand(spec: EnvironmentSpec, examples: list[Example]) -> Iterator[float]:
    """Episodes in which a person says what the model would; ends early with the input."""
    environments = Environments(spec)
    for number, example in enumerate(examples):
        [(environment, messages)] = environments.open([example])
        show(messages)
        earned, ending, metrics = 0.0, "max_turns", dict[str, float]()
        for turn in range(1, spec.max_turns + 1):
            text = read_turn()
            if text is None:
                return
            [step] = environments.step([(environment, text)], [number], turn)
            earned += step.reward
            metrics |= step.metrics
            print(f"  {step.reward:+.4g}")
            said = step.observation
            show([{"role": "user", "content": said}] if isinstance(said, str) else said)
            if step.done:
                ending = "done"
                break
        show_end(ending, earned, metrics)
        yield earned


def by_model(config: PlayConfig, examples: list[Example]) -> Iterator[float]:
    """Episodes that a model plays, shown turn by turn."""
    assert config.model is not None
    policy, tokenizer = policy_of(config.model, with_reference=False)
    context = context_length(policy.language_model)
    episodes = Episodes(config.environment, config.data, config.sampling, tokenizer, context)
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    for number, example in enumerate(examples):
        [conversation] = episodes.begin([replace(on_its_own(config.environment), example=example)])
        show(conversation.prompt.example.turns)
        sampler = partial(continued, policy, tokenizer, config.sampling, generator, turns=TurnCache())
        for turn in range(1, config.environment.max_turns + 1):
            before = len(conversation.messages)
            episodes.take_turn(turn, [(number, conversation)], sampler)
            show(conversation.messages[before : before + 1])
            print(f"  {conversation.rewards[-1]:+.4g}")
            show(conversation.messages[before + 1 :])
            if conversation.ending is not None:
                break
        episode = conversation.episode()
        show_end(episode.ending, episode.total, episode.metrics)
        yield episode.total


def read_turn() -> str | None:
    """What the person says; None at the end of the input."""
    try:
        lines = [input("you> ")]
        while lines[0].startswith(FENCE) and (len(lines) == 1 or lines[-1].strip() != FENCE):
            lines.append(input())
    except EOFError:
        print()
        return None
    return "\n".join(lines)


def show(messages: list[Message] | tuple[Message, ...]) -> None:
    """Messages, each behind who says it; none of them may command the terminal."""
    for message in messages:
        if message["content"]:
            print(visible(f"{message['role']}> {message['content']}"), flush=True)


def show_end(ending: str, earned: float, metrics: dict[str, float]) -> None:
    """How an episode ended, and what it earned."""
    measured = "".join(f", {visible(name)} {value:g}" for name, value in metrics.items())
    print(f"--- {ENDINGS[ending]}: {earned:.4g} in all{measured}\n", flush=True)
