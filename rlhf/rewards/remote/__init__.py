"""Rewards from other services: a server of scores, a language model as a judge."""
