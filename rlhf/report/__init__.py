"""Reports, plots and tables made from a run's files."""
