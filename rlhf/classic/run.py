"""The PPO stage, from the classic trainer's class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlhf.config as native
from rlhf.ppo.trainer import Callback


@dataclass(frozen=True)
class Run:
    """A PPO stage that is ready to run."""

    config: native.PPOConfig

    def train(self, prompts: Iterable[Any] | None = None, callbacks: Sequence[Callback] = ()) -> Path:
        """Train and write the policy; returns its folder. See `rlhf.stages.ppo.run_ppo`."""
        from rlhf.stages.ppo import run_ppo

        return run_ppo(self.config, prompts, callbacks)
