"""Following objects: stock ``SAM2VideoPredictor`` beside ours."""
