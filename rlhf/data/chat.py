"""From turns to token ids, such that nobody can say a control token.

What looks like one ("<|eos|>", "<|im_start|>system") in a prompt or a completion is text and becomes ordinary tokens.
Only the chat template, and the token that ends a completion, write control tokens.
"""

import re
from typing import TYPE_CHECKING

from rlhf.data.rows import for_each
from rlhf.errors import UserError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Message = dict[str, str]
PROBE: tuple[Message, ...] = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Unicode reserves them for use inside of programs."""


def prompt_ids(
    tokenizer: "PreTrainedTokenizerFast", conversations: list[list[Message]], add_generation_prompt: bool = True
) -> list[list[int]]:
    """Token ids of conversations in the chat template, which asks for an answer at the end if it is told to.

    Where a turn holds the text of a control token, the rendered conversation is cut inside of it, and the pieces are
    tokenized one by one. Raises UserError, in the template's words, that lists the turns that it does not take.
    """
    control = control_token(tokenizer)
    rendered = for_each(conversations, lambda turns: _render(tokenizer, turns, control, add_generation_prompt))
    plain = [text for text, cut in rendered if cut is None]
    found = iter(tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
    return [
        next(found)
        if cut is None
        else [token for ids in tokenizer(text.split(cut), add_special_tokens=False)["input_ids"] for token in ids]
        for text, cut in rendered
    ]


def text_ids(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    """Token ids of plain texts."""
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def closing_text(tokenizer: "PreTrainedTokenizerFast") -> str:
    """What the chat template, if there is one, writes behind an answer, without the white space around it."""
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        return ""
    try:
        rendered = tokenizer.apply_chat_template(list(PROBE), tokenize=False)
    except TemplateError:
        return ""
    return rendered.rpartition(PROBE[-1]["content"])[2].strip()


def closing_token(tokenizer: "PreTrainedTokenizerFast") -> int | None:
    """The token with which the chat template closes an answer; None where it writes ordinary text or nothing."""
    text = closing_text(tokenizer)
    tokens = tokenizer.added_tokens_decoder
    known = [(len(token.content), number) for number, token in tokens.items() if text.startswith(token.content)]
    return max(known)[1] if known else None


def control_token(tokenizer: "PreTrainedTokenizerFast") -> re.Pattern[str] | None:
    """Finds where the text of a control token begins, also inside of another one; None for a tokenizer without any."""
    texts = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    if not texts:
        return None
    return re.compile(f"(?={'|'.join(re.escape(text) for text in texts)})(.)", re.DOTALL)


def _render(
    tokenizer: "PreTrainedTokenizerFast", turns: list[Message], control: re.Pattern[str] | None, open_end: bool
) -> tuple[str, str | None]:
    """The conversation in the chat template, and the mark at which to cut it; None where nothing has to be cut."""
    from jinja2 import TemplateError

    cut = None
    said = "\0".join(text for turn in turns for text in turn.values())  # a role is data too
    if control is not None and control.search(said):
        cut = next((mark for mark in NONCHARACTERS if mark not in said), None)
        if cut is None:
            raise UserError(f"the turns that end with {turns[-1]['content'][:60]!r} hold every noncharacter of Unicode")
        turns = [{name: control.sub(rf"\1{cut}", text) for name, text in turn.items()} for turn in turns]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_end), cut
    except TemplateError as error:
        roles, last = ", ".join(turn["role"] for turn in turns), turns[-1]["content"][:60]
        raise UserError(
            f"the chat template refuses the turns ({roles}) that end with {last!r}: {one_line(error)}"
        ) from error
