"""The parts of scripts/bench_ppo.py: settings, the model both sides train, the two sides, the floor, the report."""
