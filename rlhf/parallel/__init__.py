"""Several processes: how this one was started, and what it exchanges with the others."""
