"""How a prompt is put to a model: the one way for SFT, PPO and reward models, in training and afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from rlhf.config import DataConfig
from rlhf.data.chat import Rendered, Tools, bos_ids, ids_of, renderer, text_ids
from rlhf.data.messages import Prompt, transcript_turns
from rlhf.data.rows import for_each
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Rendering:
    """A text goes to the model verbatim, behind BOS where the tokenizer adds one; a conversation in the chat template.

    Args:
        as_chat: A text becomes a user turn.
        system_prompt: The system turn of conversations that have none; makes conversations of texts, as as_chat does.
        chat_template_kwargs: Further arguments of the template.
    """

    as_chat: bool = False
    system_prompt: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DataConfig) -> Self:
        """As the settings of a stage have it."""
        return cls(data.as_chat, data.system_prompt, data.chat_template_kwargs)

    @property
    def makes_conversations(self) -> bool:
        """Whether texts become conversations."""
        return self.as_chat or bool(self.system_prompt)

    def put(self, prompt: Prompt) -> Prompt:
        """The prompt as the model is to see it: a text, or all turns of a conversation.

        A transcript like Anthropic's HH becomes its turns where a text becomes a conversation.
        """
        if isinstance(prompt, str):
            if not self.makes_conversations:
                return prompt
            prompt = transcript_turns(prompt) or ({"role": "user", "content": prompt},)
        if self.system_prompt and all(turn["role"] != "system" for turn in prompt):
            prompt = ({"role": "system", "content": self.system_prompt}, *prompt)
        return prompt

    def ids(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        prompts: Sequence[Prompt],
        tools: Sequence[Tools],
        origins: Sequence[str] | None = None,
    ) -> list[list[int]]:
        """Token ids of prompts that were `put`, and where the answer begins.

        Raises UserError that lists the rows, by their origins, that the chat template refuses or would not read whole.
        """
        render = renderer(tokenizer, template_kwargs=self.chat_template_kwargs)

        def rendered(row: tuple[str, Prompt, Tools]) -> Rendered | None:
            origin, prompt, its_tools = row
            try:
                return None if isinstance(prompt, str) else render(prompt, its_tools)
            except UserError as error:
                raise UserError(f"{origin}: {error}" if origin else str(error)) from error

        found = for_each(zip(origins or [""] * len(prompts), prompts, tools, strict=True), rendered)
        conversations = iter(ids_of(tokenizer, [row for row in found if row is not None]))
        texts = iter(text_ids(tokenizer, [prompt for prompt in prompts if isinstance(prompt, str)]))
        bos = bos_ids(tokenizer)
        return [[*bos, *next(texts)] if row is None else next(conversations) for row in found]
