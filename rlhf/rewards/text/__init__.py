"""Rewards that read the text of a completion and nothing else."""
