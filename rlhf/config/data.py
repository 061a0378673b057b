"""The settings of the data: where rows come from, which columns they have, how prompts become tokens."""

from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf.config.checks import require, require_finite, require_paths, require_positive

Overlong = Literal["error", "drop", "truncate_left"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the prompts come from and how they become tokens.

    Args:
        train: Training data: a .jsonl, .json, .csv or .parquet file, a folder of them, or a hub dataset name.
        eval: Held-out data of the same form.
        name: Subset of a hub dataset (`main` of openai/gsm8k).
        train_split: Split of a hub dataset to train on.
        eval_split: Split of a hub dataset to evaluate on.
        columns: Names of columns in the data, such as {prompt: question, reference: answer}.
        as_chat: A prompt that is a string becomes a user turn in the chat template; without it the string goes to the
            model verbatim. Lists of messages are conversations either way.
        system_prompt: System turn of every conversation that has none of its own; implies as_chat.
        chat_template_kwargs: Arguments of the chat template, for example {enable_thinking: false}.
        max_prompt_tokens: Longest prompt, in tokens; overlong says what happens to a longer one.
        max_completion_tokens: Rows with a longer completion are left out and counted; None keeps all.
        overlong: error names every row that is too long; drop leaves them out and counts them; truncate_left removes
            the first tokens of a text, or the first turns of a conversation after its system turn.
    """

    train: str | None = None
    eval: str | None = None
    name: str | None = None
    train_split: str = "train"
    eval_split: str = "test"
    columns: dict[str, str] = field(default_factory=dict)
    as_chat: bool = False
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    max_prompt_tokens: int = 256
    max_completion_tokens: int | None = None
    overlong: Overlong = "error"

    def __post_init__(self) -> None:
        require_finite(self)
        require_paths(self, "train", "eval", "name")
        require_positive(self, "max_prompt_tokens", "max_completion_tokens")
        require(self.system_prompt != "", "data.system_prompt is empty; leave it out")
        taken = RENDERING_ARGUMENTS & self.chat_template_kwargs.keys()
        require(
            not taken,
            f"data.chat_template_kwargs sets {', '.join(sorted(taken))}, which come from the rows; remove them",
        )

    def require_train(self) -> str:
        """The training data; raises UserError where none is given."""
        require(self.train is not None, "data.train is not set; name a file, a folder or a hub dataset")
        assert self.train is not None
        return self.train


RENDERING_ARGUMENTS = {
    "add_generation_prompt", "continue_final_message", "conversation", "documents", "messages", "return_dict",
    "return_tensors", "tokenize", "tools",
}  # fmt: skip
