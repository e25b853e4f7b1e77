"""What `gfprestore.detect` sets around its network: the sizes a photo is seen at, and boxes turned into faces."""
