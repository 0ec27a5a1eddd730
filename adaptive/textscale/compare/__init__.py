"""The second look against other ways to spend pixels on the same images."""
