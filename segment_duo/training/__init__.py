"""Training: the synthetic micrographs, nano's own training run, and fine-tuning on a user's masks.

Imported only by the training commands; nothing in the engine or the terminal UI may import it.
"""
