"""Stored rollouts for the token inspector: every number of every response token, packed to two bytes."""

import base64
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import UserError, visible
from rlhf.report.compare import Group
from rlhf.report.foreign import STORED, require_tensors
from rlhf.report.load import ROWS_FILE, TENSORS_FILE, Run, read_rows
from rlhf.report.samples import facts

if TYPE_CHECKING:
    import numpy as np

BUDGET = 3_000_000  # characters of the page for all stored rollouts together
STEPS_OF_16_BITS = 32767
NOT_FINITE = -32768
CHANNELS = {
    "advantage": "advantages", "reward": "rewards", "value": "old_values", "return": "returns", "kl": "kl",
    "entropy": "entropy", "logprob": "old_logprobs",
}  # fmt: skip
CHARACTERS_PER_TOKEN = 9 + (len(CHANNELS) + 1) * 2.7


def stored_rollouts(groups: list[Group]) -> list[dict[str, Any]]:
    """For the page's script: runs, their watched prompts, and for each of these the updates at which it was stored."""
    runs = [(group.name_of(run), run) for group in groups for run in group.runs if run.rollouts]
    packed = []
    for name, run in runs:
        steps, n_rows = what_fits(run, BUDGET / len(runs))
        left_out = len(run.rollouts) - len(steps)
        shown = {"label": name, "left_out": left_out, "clip_range": run.config_of("ppo").get("clip_range")}
        packed.append({**shown, "prompts": watched_prompts(run, steps, n_rows)})
    return packed


def what_fits(run: Run, budget: float) -> tuple[list[int], int]:
    """Updates, and rows of each, that fit into so many characters; at least one row of the first and last update."""
    rows = read_rows(run.rollouts[min(run.rollouts)] / ROWS_FILE, STORED)
    sizes = [len(r["tokens"]) * CHARACTERS_PER_TOKEN + 2 * len(r.get("explanation") or "") + 300 for r in rows]
    totals = list(itertools.accumulate(sizes))
    n_rows = max(1, sum(2 * total <= budget for total in totals))
    return evenly(list(run.rollouts), max(2, int(budget / totals[n_rows - 1]))), n_rows


def watched_prompts(run: Run, steps: list[int], n_rows: int) -> list[dict[str, Any]]:
    """The watched prompts of a run with their responses by update; further samples of a prompt count as prompts."""
    prompts: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        seen: Counter[str] = Counter()
        for response in itertools.islice(responses_of(run.rollouts[step]), n_rows):
            prompt = response.pop("prompt")
            seen[prompt] += 1
            key = prompt if seen[prompt] == 1 else f"{prompt} (sample {seen[prompt]})"
            prompts.setdefault(key, []).append({"step": step, **response})
    return [{"prompt": prompt, "responses": responses} for prompt, responses in prompts.items()]


def responses_of(folder: Path) -> Iterable[dict[str, Any]]:
    """The responses of one stored rollout, their numbers packed."""
    tensors, rows = read_tensors(folder), read_rows(folder / ROWS_FILE, STORED)
    needed = ["response_mask", "has_eos", "scores", *CHANNELS.values()]
    require_tensors(folder / TENSORS_FILE, tensors, len(rows), needed)
    ratio = tensors["new_logprobs"] - tensors["old_logprobs"] if "new_logprobs" in tensors else None
    for number, row in enumerate(rows):
        is_action = tensors["response_mask"][number].nonzero()[0]
        length = int(is_action[-1]) + 1 if len(is_action) else 0  # through the last token, what lies in gaps included
        numbers = {name: pack(tensors[source][number, :length]) for name, source in CHANNELS.items()}
        if ratio is not None:
            numbers["log_ratio"] = pack(ratio[number, :length])
        gaps = [t for t in range(length) if not tensors["response_mask"][number, t]]
        yield {
            **({"gaps": gaps} if gaps else {}),
            "prompt": visible(str(row["prompt"])),
            "tokens": [visible(str(token)) for token in row["tokens"][:length]],
            "ended": bool(tensors["has_eos"][number]),
            "score": float(tensors["scores"][number]),
            "rewards": facts({"rewards": row.get("rewards") or {}}),
            "explanation": visible(str(row.get("explanation") or "")),
            "numbers": numbers,
        }


def read_tensors(folder: Path) -> "dict[str, np.ndarray]":
    """The tensors of a stored rollout, without loading torch; raises UserError if they cannot be read."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / TENSORS_FILE
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({' '.join(str(error).split())}); remove that folder") from error


def pack(values: "np.ndarray") -> dict[str, Any]:
    """Numbers as 16-bit multiples of a scale, in base64: off by at most 1/65534 of the largest of them."""
    import numpy as np

    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max(initial=0.0))
    scale = largest / STEPS_OF_16_BITS or 1.0
    steps = np.where(finite, np.round(np.where(finite, values, 0) / scale), NOT_FINITE).astype("<i2")
    return {"scale": float(f"{scale:.9g}"), "data": base64.b64encode(steps.tobytes()).decode()}


def evenly(items: list[int], count: int) -> list[int]:
    """At most `count` of them, first and last included, as evenly spaced as can be."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
