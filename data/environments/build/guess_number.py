"""Writes guess_number.jsonl: games of a careless player, to begin from. Run it from the repository root."""

import json
import random
from pathlib import Path

from rlhf.environments.guess_number import GuessNumber

GAMES, LARGEST, FORGETS = 2048, 7, 0.2
FILE = Path(__file__).parents[1] / "guess_number.jsonl"


def game(rng: random.Random) -> list[dict[str, str]]:
    """A game to its end; a guess in five forgets what was said before."""
    environment = GuessNumber(largest=LARGEST)
    messages = [{"role": "user", "content": environment.reset(seed=rng.randrange(2**31))}]
    low, high = 1, LARGEST
    while True:
        guess = rng.randint(1, LARGEST) if rng.random() < FORGETS else rng.randint(low, high)
        messages.append({"role": "assistant", "content": str(guess)})
        step = environment.step(str(guess))
        if step.done:
            return messages
        messages.append({"role": "user", "content": str(step.observation)})
        low, high = (max(low, guess + 1), high) if step.observation == "higher" else (low, min(high, guess - 1))


if __name__ == "__main__":
    generator = random.Random(0)
    rows = [json.dumps({"messages": game(generator)}) + "\n" for _ in range(GAMES)]
    FILE.write_text("".join(rows), encoding="utf-8")
