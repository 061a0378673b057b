"""A language model from scratch: a small causal transformer with an LM head and a value head."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm self-attention and a perceptron, each added to the residual stream [B, L, H]."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.perceptron = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, heads, L, H / heads]
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(-2))
        return x + self.perceptron(self.perceptron_norm(x))


class TinyLM(nn.Module):
    """Token ids [B, L] -> logits of the next token [B, L, V] and values [B, L]: one trunk, two heads.

    The value head predicts, before each token is chosen, how much reward is still to come.
    """

    def __init__(self, vocabulary: int, length: int, hidden: int, layers: int, heads: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, hidden)
        self.position = nn.Embedding(length, hidden)
        self.blocks = nn.Sequential(*(Block(hidden, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(hidden)
        self.lm_head = nn.Linear(hidden, vocabulary, bias=False)
        self.value_head = nn.Sequential(nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Linear(hidden // 2, 1))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        positions = torch.arange(ids.shape[1], device=ids.device)
        h = self.norm(self.blocks(self.token(ids) + self.position(positions)))
        return self.lm_head(h), self.value_head(h).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class Response:
    """B sampled responses of at most T tokens."""

    ids: Tensor  # [B, P + T], the prompt and what follows; garbage after EOS
    response_mask: Tensor  # [B, T], True from the first response token through EOS

    @property
    def response_ids(self) -> Tensor:
        """[B, T]"""
        return self.ids[:, -self.response_mask.shape[1] :]


@torch.no_grad()
def sample(model: TinyLM, prompts: Tensor, max_tokens: int, eos: int, stream: torch.Generator) -> Response:
    """Sample every response to max_tokens: prompts [B, P] -> Response."""
    ids = prompts
    for _ in range(max_tokens):
        logits, _ = model(ids)
        token = torch.multinomial(logits[:, -1].softmax(-1), 1, generator=stream)
        ids = torch.cat([ids, token], dim=1)
    ended_before = (ids[:, prompts.shape[1] :] == eos).cumsum(-1).roll(1, -1)
    ended_before[:, 0] = 0
    return Response(ids=ids, response_mask=ended_before == 0)


def evaluate(model: TinyLM, response: Response) -> tuple[Tensor, Tensor]:
    """Logits [B, T, V] and values [B, T] of the state before each response token."""
    logits, values = model(response.ids[:, :-1])
    tokens = response.response_mask.shape[1]
    return logits[:, -tokens:], values[:, -tokens:]
