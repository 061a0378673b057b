"""Turns that are added to a conversation whose tokens are there already."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf.data.chat import Rendered, ids_of, renderer
from rlhf.data.messages import Message
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QUESTION: Message = {"role": "user", "content": "question"}
ANSWER = "Answer-f2c9a1"
"""Stands for what the model has said; nobody else says it before."""


def new_turn_ids(
    tokenizer: "PreTrainedTokenizerFast",
    added: Sequence[Sequence[Message]],
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Token ids of what the chat template writes from the end of one answer to the beginning of the next.

    They close the answer, hold the new turns and ask for the next answer. The conversation before is not put into the
    template again: its tokens stay those that were sampled, which no text could be sure to give back, and so does what
    a template would take out of earlier turns (thoughts, say). Whatever looks like a control token in a turn is text,
    as everywhere.

    Raises UserError, in the template's words, for turns that it does not take.
    """
    render = renderer(tokenizer, template_kwargs=template_kwargs)

    def behind_the_answer(turns: Sequence[Message]) -> Rendered:
        text, cut = render([QUESTION, {"role": "assistant", "content": ANSWER}, *turns], None)
        _, found, rest = text.partition(ANSWER)
        if not found or not rest:
            raise UserError(
                "the chat template does not show what the assistant said before, so that there can be no second turn; "
                "use another template"
            )
        return Rendered(rest, cut)

    written = {json.dumps(turns): turns for turns in added}  # environments often say the same to many
    ids = dict(zip(written, ids_of(tokenizer, [behind_the_answer(turns) for turns in written.values()]), strict=True))
    return [list(ids[json.dumps(turns)]) for turns in added]
