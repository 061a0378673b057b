"""Held-out measurement: sampling with a fixed seed, pass@k, and the best model of a run."""
