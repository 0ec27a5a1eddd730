"""Training of the text detection network."""
