"""A run that watches itself: symptoms in its metrics, and reward hacking."""
