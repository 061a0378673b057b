"""Which tokens of a prompt belong to earlier answers of the assistant, for SFT on all of them."""

import re
from itertools import accumulate
from typing import TYPE_CHECKING

from rlhf.data.chat import NONCHARACTERS, Rendered, closing_token, renderer, strings
from rlhf.data.messages import Message
from rlhf.data.parsing import Example
from rlhf.data.rendering import Rendering
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})


def assistant_mask(tokenizer: "PreTrainedTokenizerFast", example: Example, rendering: Rendering) -> list[bool]:
    """For each token of a tokenized example's prompt, whether it belongs to an answer of an earlier turn.

    An answer is what the turn says and, where the chat template closes it with a control token, all up to this one. An
    assistant turn at the very end, from which the completion goes on, is none. Raises UserError where the template
    changes what was said, so that it cannot be found again.
    """
    if not has_earlier_answers(example):
        return [False] * len(rendering.ids(tokenizer, [example.given], [example.tools])[0])
    rendered = renderer(tokenizer, template_kwargs=rendering.chat_template_kwargs)(example.turns, example.tools)
    spans = _answers(tokenizer, example, rendering, "".join(rendered.pieces))
    return [any(start <= at < end for start, end in spans) for at in _token_starts(tokenizer, rendered)]


def has_earlier_answers(example: Example) -> bool:
    """Whether there is an answer before the last turn."""
    return any(turn["role"] == "assistant" for turn in example.turns[:-1])


def _answers(
    tokenizer: "PreTrainedTokenizerFast", example: Example, rendering: Rendering, text: str
) -> list[tuple[int, int]]:
    """(start, end) of each answer in the rendered text, found by two marks around the content of its turn."""
    *earlier, last = example.turns
    said = "".join(strings([example.turns, example.tools]))
    start, end, *_ = [mark for mark in NONCHARACTERS[::-1] if mark not in said] + ["", ""]
    marked_turns = [_marked(turn, start, end) if turn["role"] == "assistant" else turn for turn in earlier]
    render = renderer(tokenizer, template_kwargs=rendering.chat_template_kwargs)
    pieces = re.split(f"([{start}{end}])", "".join(render([*marked_turns, last], example.tools).pieces))
    texts, marks = pieces[::2], pieces[1::2]
    n_answers = sum(turn["role"] == "assistant" for turn in earlier)
    if "".join(texts) != text or marks != [start, end] * n_answers:
        raise UserError(
            f"{example.origin}: the chat template does not show every earlier answer as it was given, so that train_on "
            "all cannot find it; use train_on last, or a template that does"
        )
    places = list(accumulate(map(len, texts[:-1])))
    token = closing_token(tokenizer)
    closing = None if token is None else tokenizer.added_tokens_decoder[token].content
    return [(start, _after(text, closing, end)) for start, end in zip(places[::2], places[1::2], strict=True)]


def _marked(turn: Message, start: str, end: str) -> Message:
    """The turn with a mark on either side of what it says; outside of them white space, which templates take away."""
    content = turn["content"]
    core = content.strip()
    before = content[: len(content) - len(content.lstrip())] if core else ""
    return {**turn, "content": f"{before}{start}{core}{end}{content[len(before) + len(core) :]}"}


def _after(text: str, closing: str | None, place: int) -> int:
    """Where the closing token ends that follows a place, or the place itself."""
    found = text.find(closing, place) if closing else -1
    return place if closing is None or found < 0 else found + len(closing)


def _token_starts(tokenizer: "PreTrainedTokenizerFast", rendered: Rendered) -> list[int]:
    """Where each token begins in the rendered text."""
    starts, before = [], 0
    for piece in rendered.pieces:
        offsets = tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        starts += [before + start for start, _ in offsets]
        before += len(piece)
    return starts
