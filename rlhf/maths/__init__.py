"""PPO in tensors: statistics under a mask, KL, advantages, losses. Models and configs stay outside."""
