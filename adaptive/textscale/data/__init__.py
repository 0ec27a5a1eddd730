"""Scene text with annotations: read from ICDAR's files, or rendered."""
