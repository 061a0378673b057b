"""A game whose best play is known: find a number by what is said of each guess."""

import functools
import random
import re

from rlhf.environments.contract import Step

NUMBER = re.compile(r"-?\d+")


class GuessNumber:
    """A number from 1 to `largest`, drawn by the seed; every guess but the right one is answered `higher` or `lower`.

    The right guess earns 1, every other one costs `cost`, and so does a turn without a number, answered
    `say a number`. After `guesses` turns it is over. What counts is the first number of a turn.

    `best_return` is what nobody can exceed on average: bisection finds every number while 2^guesses > largest.
    """

    def __init__(self, *, largest: int = 7, guesses: int = 4, cost: float = 0.2) -> None:
        if largest < 1 or guesses < 1 or not 0 <= cost < 1:
            raise ValueError(f"largest {largest} and guesses {guesses} must be at least 1, and cost {cost} in [0, 1)")
        self.largest, self.guesses, self.cost = largest, guesses, cost
        self.number, self.turns = 0, 0

    def reset(self, seed: int) -> str:
        self.number = random.Random(seed).randint(1, self.largest)
        return f"guess 1 to {self.largest}"

    def step(self, text: str) -> Step:
        self.turns += 1
        found = NUMBER.search(text)
        guess = int(found[0]) if found and len(found[0]) < 20 else None
        if guess == self.number:
            return Step("right", 1.0, done=True, metrics={"found": 1.0})
        is_over = self.turns == self.guesses
        said = "say a number" if guess is None else "higher" if guess < self.number else "lower"
        return Step(said, -self.cost, done=is_over, metrics={"found": 0.0})

    @property
    def best_return(self) -> float:
        """The mean return of the best play, over all numbers."""

        @functools.cache
        def best(numbers: int, guesses: int) -> float:
            """Of so many equally probable numbers with so many guesses left, summed over the numbers."""
            if numbers == 0 or guesses == 0:
                return 0.0
            halves = [(below, numbers - 1 - below) for below in range(numbers)]
            rest = max(best(below, guesses - 1) + best(above, guesses - 1) for below, above in halves)
            return 1.0 - self.cost * (numbers - 1) + rest

        return best(self.largest, self.guesses) / self.largest
