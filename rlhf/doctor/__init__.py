"""What can be known before a PPO run: checks on the real model, tokenizer, data and rewards.

Each check is a function from the `Trial` to `Check`s; `examination` runs them all, `stage` prints what they found.
"""
