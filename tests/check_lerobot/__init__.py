"""`make check-lerobot`: an export read back by lerobot itself, which lives in an environment of its own."""
