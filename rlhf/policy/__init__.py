"""Policy, critic and reference on one trunk: the forward pass, merging, saving, sharding."""
