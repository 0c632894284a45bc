"""Reading clips: which frames, decoding, resizing, sound. Knows nothing of the host or of any model."""
