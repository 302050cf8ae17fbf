"""The lines above and below: what is open, where the cross-hair is, what happened last."""
