"""Files of photos byte by byte: pixels decoded and encoded, and what lies beside them read, kept and written."""
