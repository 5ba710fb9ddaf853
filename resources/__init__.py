"""The outside world, configured and constructed: the store, recordings, the model registry, encoders."""
