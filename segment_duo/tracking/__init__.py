"""Objects over the frames of a sequence: linking the masks of frames, figures of tracks, scores. Plain computing: no files, models or front ends."""
