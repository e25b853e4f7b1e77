"""Networks written in plain torch: no files, no device chosen, no printing."""
