"""Environments: who answers the model over several turns, and pays for each of them. Read `contract` first."""

from rlhf.environments.contract import Environment, Messages, Step

__all__ = ["Environment", "Messages", "Step"]
