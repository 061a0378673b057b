"""Run folders: their files, checkpoints, locks, and how a run is stopped and continued."""
