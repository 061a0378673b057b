"""Faults injected into real runs: the parts of tests/reliability/fault_matrix.py."""
