"""Training the shipped model nano: scenes and real pictures, batches, the run. Its command is ``python -m segment_duo.training.nano``."""
