"""Faults injected into real runs: the parts of scripts/fault_matrix.py."""
