"""The algorithm: rollout, credit, clipped epochs, and the loop around them. Read `trainer` first."""

from typing import Any

from rlhf import moved


def __getattr__(name: str) -> Any:
    return moved.look_up(__name__, name)
