"""Responses: the decode loop, its batch, and vLLM in its place."""
