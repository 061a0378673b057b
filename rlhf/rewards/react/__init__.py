"""Rewards for React code, from substrings up to rendering the component."""
