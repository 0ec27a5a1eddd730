"""Tokens where text is: how many a photograph needs, and what a network does with them."""
