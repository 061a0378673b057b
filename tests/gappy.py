"""Masks and token ids with gaps: tokens that the policy did not choose."""

import torch

GAPPY = torch.tensor(
    [
        [1, 1, 0, 0, 1, 1, 0],  # a gap, then padding
        [0, 1, 0, 1, 0, 1, 1],  # begins with a gap
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
).bool()
IDS = torch.arange(40, 75).view(5, 7)
LAST = [6, 7, 7, 4, 0]
