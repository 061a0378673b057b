"""Verifiable instructions: 25 checks by their published description, a reward, and the accuracies of IFEval.

Zhou et al., "Instruction-Following Evaluation for Large Language Models", 2023, arXiv:2311.07911. Where these checks
differ from the published program on purpose, docs/how-to/instructions.md says how.
"""

from rlhf.rewards.ifeval.accuracy import Accuracy, accuracy_table, measure_accuracy, measure_file
from rlhf.rewards.ifeval.registry import KINDS, Instruction, read_instructions
from rlhf.rewards.ifeval.reward import Instructions

__all__ = [
    "KINDS",
    "Accuracy",
    "Instruction",
    "Instructions",
    "accuracy_table",
    "measure_accuracy",
    "measure_file",
    "read_instructions",
]
