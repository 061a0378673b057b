"""Small worlds in which PPO can be watched: bandits, dynamics, a tiny language model.

Each toy is a short loop of its own over the very functions of `rlhf.maths.losses` that train the language models, and
needs nothing but torch. Run one with `rlhf toy NAME`; see `rlhf.toy.config` for the defaults and how they were chosen.
"""
