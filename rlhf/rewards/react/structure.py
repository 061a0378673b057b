"""Does a completion have the outline of a component at all?"""

from typing import Any

from rlhf.rewards.code_text import code_of
from rlhf.rewards.react.syntax import has_jsx_structure
from rlhf.rewards.turns import TextReward


class ReactStructure(TextReward):
    """1.0 if `return`, `<` and a closing `/>` or `</` all occur in the code of the completion, else 0.0.

    Code fences are removed. A measure to report rather than to train on: `return </` is enough to fool it.
    """

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        return [float(has_jsx_structure(code_of(completion))) for completion in completions]

    def explain(self, prompt: str, completion: str, **columns: Any) -> str:
        code = code_of(completion)
        missing = [mark for mark in ("return", "<") if mark not in code]
        if "/>" not in code and "</" not in code:
            missing.append("/> or </")
        return f"missing: {', '.join(missing)}" if missing else "return, < and a closing tag found"
