"""A film, shot by shot: cut, edited as many clips, joined with its own sound."""
