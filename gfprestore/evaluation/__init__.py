"""Image quality metrics; nothing of the main job imports it."""
