"""Tasks of the core: a table of measured blocks, and how far off its predictions are."""
