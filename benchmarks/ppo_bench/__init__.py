"""The parts of benchmarks/bench_ppo.py: settings, the model both sides train, the two sides, the floor, the report."""
