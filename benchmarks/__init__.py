"""What vqtool's speed is, against whom, and what the machine could do; `python -m benchmarks` measures it all."""
