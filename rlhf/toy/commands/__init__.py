"""What `rlhf toy NAME` does: train, write, draw, print; one module per toy."""
