"""A run of many updates that is struck by faults, beside the same run left alone (tests/reliability/long_run.py)."""
