"""Training of the generator and its parts; nothing of the main job imports it."""
