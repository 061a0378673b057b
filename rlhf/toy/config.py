"""The settings of every toy, in one place and free of torch, so that `--help` answers at once.

Every default was chosen by measurement over three seeds or more: the end of docs/guide/ppo-in-five-steps.md.
"""

import math
from dataclasses import dataclass
from pathlib import Path


def _require(holds: bool, name: str, value: object, constraint: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {constraint}")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """What every toy has."""

    seed: int = 0
    """the first seed"""
    seeds: int = 5
    """how many seeds, from the first on; curves show their mean and 10% to 90% band"""
    threads: int = 2
    """CPU threads for torch"""
    output_dir: Path
    """where plots, metrics.jsonl and summary.json go"""

    def __post_init__(self) -> None:
        _require(self.seeds >= 1, "seeds", self.seeds, "at least 1")
        _require(self.threads >= 1, "threads", self.threads, "at least 1")
        for name in ("lr", "value_head_lr", "clip_range", "value_clip_range"):
            value = getattr(self, name, 1)  # no toy has all of them
            _require(0 < value < math.inf, name, value, "positive and finite")


@dataclass(frozen=True, kw_only=True)
class BanditConfig(ToyConfig):
    """Five arms: REINFORCE, PPO, and PPO with a KL penalty against the closed-form optimum."""

    seeds: int = 10
    pulls: int = 1024
    """arms pulled per run while methods are compared (8 per update)"""
    kl_coefs: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    """the KL coefficients beta, each tried with every reference"""
    updates: int = 200
    """updates of 256 pulls each with the KL penalty"""
    epochs: int = 4
    """PPO steps per batch"""
    lr: float = 0.05
    """Adam step size, falling linearly to 0"""
    clip_range: float = 0.2
    vf_coef: float = 0.5
    output_dir: Path = Path("runs/toy/bandit")

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.pulls >= 8, "pulls", self.pulls, "at least 8, one update")
        _require(bool(self.kl_coefs), "kl_coefs", list(self.kl_coefs), "one or more numbers")
        _require(all(beta > 0 for beta in self.kl_coefs), "kl_coefs", self.kl_coefs, "positive")
        _require(min(self.updates, self.epochs) >= 1, "updates, epochs", (self.updates, self.epochs), "at least 1")


@dataclass(frozen=True, kw_only=True)
class ContextualConfig(ToyConfig):
    """Contextual bandit: actor-critic PPO against random and optimal play."""

    seeds: int = 10
    updates: int = 200
    batch_size: int = 64
    """contexts per update"""
    epochs: int = 4
    """PPO steps per batch"""
    hidden: int = 32
    """units of the hidden layer, of actor and critic each"""
    lr: float = 1e-2
    """Adam step size, falling linearly to 0"""
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    vf_coef: float = 0.5
    output_dir: Path = Path("runs/toy/contextual")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates", "epochs", "hidden"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2, to whiten advantages")


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig(ToyConfig):
    """Reward against KL penalty against batch noise: one run in words, and sweeps over what unbalances them."""

    seeds: int = 10
    updates: int = 200
    batch_size: int = 32
    """observations per update"""
    kl_target: float = 0.1
    """nats per action between the policy and the reference that the penalty |KL - target| asks for"""
    kl_coef: float = 2.0
    """weight of that penalty"""
    clip_range: float = 0.2
    lr: float = 1e-2
    """Adam step size"""
    epochs: int = 4
    """PPO steps per batch"""
    output_dir: Path = Path("runs/toy/dynamics")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates", "epochs"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.kl_target > 0, "kl_target", self.kl_target, "positive")
        _require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2, to whiten advantages")


@dataclass(frozen=True, kw_only=True)
class TinyLMConfig(ToyConfig):
    """A transformer from scratch learns to sort digits by PPO, with and without the KL penalty."""

    seeds: int = 1
    threads: int = 1
    """CPU threads for torch; a second one gains a third on an idle machine and costs double on a busy one"""
    digits: int = 5
    """digits in a prompt; a response may have twice as many tokens"""
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    reference_steps: int = 800
    """supervised steps, of 128 careless demonstrations each, that make the reference"""
    updates: int = 60
    """PPO updates, with and without the KL penalty"""
    batch_size: int = 128
    """responses per update"""
    mini_batch_size: int = 64
    epochs: int = 4
    """passes over each batch"""
    lr: float = 5e-4
    """Adam step size of PPO, falling linearly to 0"""
    value_head_lr: float = 3e-3
    """Adam step size of the value head, which starts at random beside a trained trunk"""
    kl_coef: float = 0.15
    """the KL coefficient beta, in reward per nat"""
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    vf_coef: float = 0.5
    gae_lambda: float = 0.95
    output_dir: Path = Path("runs/toy/tiny-lm")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "heads", "reference_steps", "updates", "epochs", "mini_batch_size", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.digits >= 2, "digits", self.digits, "at least 2, to have an order")
        _require(self.hidden % self.heads == 0, "hidden", self.hidden, f"a multiple of heads = {self.heads}")
        _require(
            self.batch_size % self.mini_batch_size == 0,
            "batch_size", self.batch_size, f"a multiple of mini_batch_size = {self.mini_batch_size}",
        )  # fmt: skip
        _require(self.kl_coef >= 0, "kl_coef", self.kl_coef, "at least 0")


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """The explanatory figures: clipping, KL penalty and estimators, value head, the loop."""

    toys: bool = False
    """run the other toys too, with their defaults, and put their pictures beside the figures (about two minutes)"""
    threads: int = 2
    """CPU threads for torch while drawing; each toy uses its own default"""
    output_dir: Path = Path("runs/toy/figures")
    """where the pictures go"""
