"""Stock ``sam2`` against this project's engine: same weights, same image, same machine, in turn. ``python -m benchmarks.speed --help``."""
