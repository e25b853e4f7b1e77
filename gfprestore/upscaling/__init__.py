"""Photos enlarged by a network, tile by tile; `gfprestore.background` chooses the way."""
