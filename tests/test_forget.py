"""Forgetting a time of a camera: nothing of it stays, nothing brings it back, and the rest comes back by itself."""
