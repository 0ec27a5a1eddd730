"""Detection over folders of images."""
