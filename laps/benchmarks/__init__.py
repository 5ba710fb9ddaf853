"""Public benchmarks: their layouts on disk, recordings of points instead of video, and one run over all of it."""
