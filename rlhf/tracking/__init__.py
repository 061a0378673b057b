"""Where metrics go while a stage runs: files, the terminal, W&B, TensorBoard."""
