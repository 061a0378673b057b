"""Rewards a component that really renders: transpiled and run in a sandbox, turned into HTML by React."""

from typing import Any

from rlhf.rewards.code_text import code_of, code_range
from rlhf.rewards.react.parses import describe_error
from rlhf.rewards.react.render.html import Page, read_page
from rlhf.rewards.react.render.pool import Rendered, shared_pool
from rlhf.rewards.react.syntax import Syntax, parses
from rlhf.rewards.turns import TextReward

EMPTY, BASE, PER_TAG = 0.3, 0.6, 0.1
TIME_LIMIT = 1.0
UNPARSED = Rendered(None, "does not parse")


class Renders(TextReward):
    """What the rendering rewards share: the limits, and the pool of sandboxes that goes with them.

    `time_limit` is CPU seconds per completion; `workers` processes, by default one per CPU of the rank. Raises
    `RenderUnavailableError` if something is not installed, ValueError for limits that are not positive.
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT, workers: int | None = None) -> None:
        self.time_limit, self.workers = time_limit, workers
        shared_pool(workers, time_limit)  # what is missing must be known now, not at the first batch

    def render(self, completions: list[str]) -> list[Rendered]:
        """Render the code of each completion that parses; the transpiler lets through what no compiler would."""
        codes = [code_of(completion) for completion in completions]
        sound = [code for code in dict.fromkeys(codes) if parses(code)]
        pool = shared_pool(self.workers, self.time_limit)  # asked for each time: objects may travel to other processes
        pages = dict(zip(sound, pool.render(sound), strict=True))
        return [pages.get(code, UNPARSED) for code in codes]

    def render_to_explain(self, completion: str) -> Rendered:
        """As `render`, and says where the code stops to parse, which takes longer to find out."""
        (rendered,) = self.render([completion])
        if rendered is not UNPARSED:
            return rendered
        start, end = code_range(completion)
        return Rendered(None, describe_error(completion, start, Syntax(completion[start:end])))


class ReactRender(Renders):
    """`0` if it fails, `.3` if it renders nothing, else `min(1, .6 + .1 tags)`, tags being HTML elements.

    The component is rendered without props and, if it needs some, with stand-ins for them. What it imports
    from elsewhere is replaced by stand-ins that render their children: a page of nothing but these counts as
    failed. Code fences are removed. Fooled by any component that works, also one that has nothing to do with the
    prompt.
    """

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [render_score(rendered, page_of(rendered)) for rendered in self.render(completions)]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        rendered = self.render_to_explain(completion)
        return describe_rendering(rendered, page_of(rendered))


def page_of(rendered: Rendered) -> Page | None:
    """What is on the page; None if it failed or if only stand-ins were rendered."""
    if rendered.html is None:
        return None
    page = read_page(rendered.html)
    return None if rendered.stand_ins and not page.tags else page


def render_score(rendered: Rendered, page: Page | None) -> float:
    """The formula of `ReactRender`."""
    if page is None:
        return 0.0
    if not (rendered.html or "").strip():
        return EMPTY
    return min(1.0, round(BASE + PER_TAG * page.tags.total(), 2))


def describe_rendering(rendered: Rendered, page: Page | None) -> str:
    """One line on what was rendered."""
    if rendered.html is None:
        return f"does not render: {rendered.error}"
    if page is None:
        return f"renders nothing but {rendered.stand_ins} stand-ins for imported components"
    if not rendered.html.strip():
        return "renders empty"
    tags = ", ".join(f"{count} {tag}" for tag, count in page.tags.most_common(6)) or "text only"
    return f"renders {page.tags.total()} tags ({tags}), {page.words.total()} words"
