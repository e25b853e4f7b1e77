"""Networks written in plain torch, and their weights in plain arrays: no files, no device chosen, no printing."""
