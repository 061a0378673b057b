"""React components that are mended: the model sees what parser or renderer say of its code, and answers again."""

import asyncio
from typing import Any, Literal, cast, get_args

from rlhf.config.rewards import RewardSpec
from rlhf.environments.contract import Messages, Step
from rlhf.environments.react_requests import REQUESTS
from rlhf.rewards import load_reward
from rlhf.rewards.code_text import code_range
from rlhf.rewards.react.parses import describe_error
from rlhf.rewards.react.renders import Renders, describe_rendering, page_of
from rlhf.rewards.react.syntax import Syntax

Reward = Literal["react_full", "react_match", "react_render", "react_static", "react_parses"]
AGAIN = "Your component {}. Answer with the whole component again, mended."


class ReactRepair:
    """A request for a component, and up to `turns` versions of it.

    Without data the requests are a few of its own. A version that is broken is answered with what is wrong; one that
    parses and, with a reward that renders, renders something ends the episode as solved. A turn earns what its version
    scores more than the one before, less `cost` for every turn but the first, so that an episode earns the score of its
    last version minus the costs.

    Args:
        reward: The score of a version. With react_static and react_parses only the parser is asked; the others render,
            which needs `rlhf setup-render`, and react_full and react_match need a completion in the data to compare
            with.
        turns: Versions at most.
        cost: Of each turn after the first.
    """

    def __init__(self, *, reward: Reward = "react_full", turns: int = 3, cost: float = 0.1) -> None:
        if reward not in get_args(Reward):
            raise ValueError(f"reward is {reward!r}; it must be one of {', '.join(get_args(Reward))}")
        if turns < 1 or not 0 <= cost < 1:
            raise ValueError(f"turns {turns} must be at least 1, and cost {cost} in [0, 1)")
        self.reward, self.turns, self.cost = load_reward(RewardSpec(path=reward)), turns, cost
        self.prompt: Any = ""
        self.columns: dict[str, Any] = {}
        self.said, self.score = 0, 0.0

    def reset(self, prompt: Messages | None = None, seed: int = 0, **columns: Any) -> Messages:
        if prompt is None:
            prompt, columns["reference"] = REQUESTS[seed % len(REQUESTS)]
        self.prompt, self.columns = prompt, columns
        return prompt

    async def step(self, text: str) -> Step:
        """Coroutines, so that the versions of a batch are rendered side by side."""
        return await asyncio.to_thread(self.judge, text)

    def judge(self, text: str) -> Step:
        """The step itself."""
        self.said += 1
        fault, score = self.fault(text), self.score_of(text)
        earned = score - self.score - (self.cost if self.said > 1 else 0.0)
        self.score = score
        is_over = fault is None or self.said == self.turns
        solved = {"solved": float(fault is None), "solved_at_once": float(fault is None and self.said == 1)}
        return Step(AGAIN.format(fault) if fault else "", earned, is_over, solved)

    def fault(self, text: str) -> str | None:
        """What is wrong with a version; None of one that works."""
        if not isinstance(self.reward, Renders):
            start, end = code_range(text)
            syntax = Syntax(text[start:end])
            return None if syntax.parses else describe_error(text, start, syntax)
        rendered = self.reward.render_to_explain(text)
        page = page_of(rendered)
        works = page is not None and bool((rendered.html or "").strip())
        return None if works else describe_rendering(rendered, page)

    def score_of(self, text: str) -> float:
        """What the reward says of a version; raises ValueError where it does not apply."""
        columns = {name: [value] for name, value in self.columns.items()}
        [score] = self.reward(prompts=[self.prompt], completions=[text], **columns)
        if score is None:
            raise ValueError("the reward does not apply: the row has no completion that renders; take react_render")
        return cast(float, score)
