"""How `gfprestore.colorize` spreads the colour of a few faces: colour spaces, edges, ears and necks."""
