"""Rewards that ask somebody else: a server of scores, a language model as a judge."""
