"""What is measured side by side: `python tests/benchmarks/speed.py` prints it. No timed tests."""
