"""Rewards of the runs in which faults are injected."""

import json
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def count_e(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float | None]:
    """The share of the letter e: something that a random model can vary in."""
    return [share_of_e(text) for text in completions]


def share_of_e(text: str) -> float:
    return text.count("e") / max(1, len(text))


class CountEInWorkers:
    """The same, counted by another process."""

    def __init__(self) -> None:
        self.workers = ProcessPoolExecutor(1)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return list(self.workers.map(share_of_e, completions))


class RenderedE:
    """The same, of a page that shows the text, made by the sandbox of the rewards that render."""

    def __init__(self) -> None:
        from rlhf.rewards.react.render.pool import shared_pool

        self.pool = shared_pool(1, 1.0)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        texts = [json.dumps(text) for text in completions]
        pages = self.pool.render([f"export default () => <p>{{{text}}}</p>;" for text in texts])
        shown = [page.html is not None and page.html.startswith("<p>") for page in pages]
        return [share_of_e(text) if there else -1.0 for text, there in zip(completions, shown, strict=True)]
