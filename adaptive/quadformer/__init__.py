"""Mixed-resolution vision transformers: quadtree tokens where an image needs them."""
