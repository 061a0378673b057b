"""From turns to token ids, such that no text becomes a control token.

What looks like one ("<|eos|>", "<|im_start|>system") in a prompt or a completion is text and becomes ordinary tokens.
Only the chat template, BOS, and the token that ends a completion, are control tokens.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf.data.messages import Message
from rlhf.data.rows import for_each
from rlhf.errors import UserError, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Tools = list[dict[str, Any]] | None
PROBE: tuple[Message, ...] = ({"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"})
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Unicode reserves them for use inside of programs."""
REASONING = {"reasoning_content", "reasoning", "thinking"}
"""Names of one thing: transformers hands it to the template under each of them."""


class Rendered(NamedTuple):
    """A conversation in the chat template, and the mark at which to cut it; None where nothing has to be cut."""

    text: str
    cut: str | None

    @property
    def pieces(self) -> list[str]:
        """The text in the pieces that are tokenized one by one."""
        return [self.text] if self.cut is None else self.text.split(self.cut)


def prompt_ids(
    tokenizer: "PreTrainedTokenizerFast",
    conversations: Sequence[Sequence[Message]],
    add_generation_prompt: bool = True,
    tools: Sequence[Tools] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[list[int]]:
    """Token ids of conversations in the chat template, which asks for an answer at the end if it is told to.

    Where the last turn is the assistant's, the answer goes on from there. Where a turn holds the text of a control
    token, the rendered conversation is cut inside of it, and the pieces are tokenized one by one. Raises UserError, in
    the template's words, that lists the turns that it does not take.
    """
    render = renderer(tokenizer, add_generation_prompt, template_kwargs)
    rows = zip(conversations, tools or [None] * len(conversations), strict=True)
    return ids_of(tokenizer, for_each(rows, lambda row: render(*row)))


def ids_of(tokenizer: "PreTrainedTokenizerFast", rendered: Sequence[Rendered]) -> list[list[int]]:
    """Token ids of rendered conversations."""
    plain = [conversation.text for conversation in rendered if conversation.cut is None]
    found = iter(tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
    return [
        next(found)
        if conversation.cut is None
        else [token for ids in tokenizer(conversation.pieces, add_special_tokens=False)["input_ids"] for token in ids]
        for conversation in rendered
    ]


def text_ids(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    """Token ids of plain texts, without any control token."""
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []


def bos_ids(tokenizer: "PreTrainedTokenizerFast") -> list[int]:
    """[BOS] where the tokenizer itself puts it in front of a text (Llama's does, GPT-2's does not), else nothing."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][0] == bos else []


def closing_text(tokenizer: "PreTrainedTokenizerFast") -> str:
    """What the chat template, if there is one, writes behind an answer, without the white space around it.

    Nothing where it fails on a plain conversation, or leaves the answer out.
    """
    if tokenizer.chat_template is None:
        return ""
    try:
        rendered = tokenizer.apply_chat_template(list(PROBE), tokenize=False)
    except Exception:  # templates are programs
        return ""
    _, answer, behind = rendered.rpartition(PROBE[-1]["content"])
    return behind.strip() if answer else ""


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
    # by their first characters, which are few: a search then passes over all others at once
    rests: dict[str, list[str]] = {}
    for text in texts:
        rests.setdefault(re.escape(text[0]), []).append(re.escape(text[1:]))
    follows = "|".join(f"(?<={first})(?={'|'.join(rest)})" for first, rest in rests.items())
    return re.compile(f"([{''.join(rests)}])(?:{follows})")


def renderer(
    tokenizer: "PreTrainedTokenizerFast",
    add_generation_prompt: bool = True,
    template_kwargs: Mapping[str, Any] | None = None,
) -> Callable[[Sequence[Message], Tools], Rendered]:
    """A function that puts turns, with their tools, into the chat template.

    It raises UserError where the template refuses the turns, and where it would leave something out: tools, or a key
    of a turn, of which it says nothing. So does this function for arguments that the template does not know.
    """
    control, arguments = control_token(tokenizer), dict(template_kwargs or {})
    for name in arguments:
        _require_read(tokenizer, None, name, f"data.chat_template_kwargs has {name}")

    def render(turns: Sequence[Message], tools: Tools) -> Rendered:
        for name in {name for turn in turns for name in turn} - {"role", "content"}:
            _require_read(tokenizer, tools, name, f"a turn has {name}")
        if tools:
            _require_read(tokenizer, tools, "tools", "the row has tools")
        cut = _mark(turns, tools, control)
        if cut is not None and control is not None:
            turns, tools = (mapped(value, lambda text: control.sub(rf"\1{cut}", text)) for value in (turns, tools))
        goes_on = add_generation_prompt and turns[-1]["role"] == "assistant"
        options = {"add_generation_prompt": add_generation_prompt and not goes_on, "continue_final_message": goes_on}
        try:
            text = _applied(tokenizer, turns, tools=tools or None, **options, **arguments)
        except Exception as error:  # templates are programs
            roles, last = ", ".join(turn["role"] for turn in turns), turns[-1]["content"][:60]
            raise UserError(
                f"the chat template refuses the turns ({roles}) that end with {last!r}: {one_line(error)}"
            ) from error
        return Rendered(text, cut)

    return render


def _applied(tokenizer: "PreTrainedTokenizerFast", turns: Sequence[Message], **options: Any) -> str:
    """The turns in the template, which may want the arguments of tool calls as JSON text (DeepSeek's)."""
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, **options))
    except TypeError:
        as_text = [_with_text_arguments(turn) for turn in turns]
        if as_text == list(turns):
            raise
        return str(tokenizer.apply_chat_template(as_text, tokenize=False, **options))


def _with_text_arguments(turn: Message) -> Message:
    if not turn.get("tool_calls"):
        return turn
    calls = [dict(call) for call in turn["tool_calls"]]
    for call in calls:
        if "arguments" in call.get("function", ()):
            text = json.dumps(call["function"]["arguments"], ensure_ascii=False)
            call["function"] = {**call["function"], "arguments": text}
    return {**turn, "tool_calls": calls}


def strings(value: Any) -> Iterator[str]:
    """Every text in a value of lists and objects, names included: a role is data too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from strings(item)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): mapped(item, change) for name, item in value.items()}
    return [mapped(item, change) for item in value] if isinstance(value, Sequence) else value


def _mark(turns: Sequence[Message], tools: Tools, control: re.Pattern[str] | None) -> str | None:
    """A character that is in none of the texts, where one of them holds a control token; None elsewhere."""
    said = "\0".join(strings([turns, tools]))
    if control is None or not control.search(said):
        return None
    mark = next((mark for mark in NONCHARACTERS if mark not in said), None)
    if mark is None:
        raise UserError(f"the turns that end with {turns[-1]['content'][:60]!r} hold every noncharacter of Unicode")
    return mark


def _require_read(tokenizer: "PreTrainedTokenizerFast", tools: Tools, name: str, what: str) -> None:
    names = REASONING if name in REASONING else {name}
    if not re.search(rf"\b({'|'.join(map(re.escape, names))})\b", tokenizer.get_chat_template(tools=tools)):
        raise UserError(f"{what}, which the chat template does not read; take it away, or use a template that does")
