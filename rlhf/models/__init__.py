"""Causal language models and tokenizers: loading them, and what a base in four bits needs."""
