"""The whole React reward: the code is sound, it renders, and it renders what was asked for."""

from typing import Any

from rlhf.rewards.code_text import code_of
from rlhf.rewards.react.match import ReactMatch, describe_match, match_score
from rlhf.rewards.react.renders import page_of, render_score
from rlhf.rewards.react.static import static_parts

STATIC, RENDER, MATCH = 0.15, 0.15, 0.70


class ReactFull(ReactMatch):
    """`.15 react_static + .15 react_render + .70 react_match`, each rendering done once.

    Where `ReactMatch` does not apply, neither does this: without a reference, use the other two by themselves.
    """

    def __call__(
        self, prompts: list[str], completions: list[str], reference: list[str | None], **columns: list[Any]
    ) -> list[float | None]:
        scores: list[float | None] = []
        wanted_pages = self.reference_pages(reference)
        for completion, rendered, wanted in zip(completions, self.render(completions), wanted_pages, strict=True):
            page = page_of(rendered)
            scores.append(
                None
                if wanted is None
                else STATIC * static_parts(code_of(completion)).score
                + RENDER * render_score(rendered, page)
                + MATCH * match_score(page, wanted)
            )
        return scores

    def explain(self, prompt: str, completion: str, *, reference: str | None, **columns: Any) -> str:
        rendered, (wanted,) = self.render_to_explain(completion), self.reference_pages([reference])
        if wanted is None:
            return "does not apply: there is no reference that renders"
        page = page_of(rendered)
        return (
            f"{STATIC:.2f} x {static_parts(code_of(completion)).score:.2f} static, "
            f"{RENDER:.2f} x {render_score(rendered, page):.2f} render, "
            f"{MATCH:.2f} x {match_score(page, wanted):.2f} match\n{describe_match(rendered, wanted)}"
        )
