"""The report file: written, read again by a later run, and edited by hand to choose faces."""
