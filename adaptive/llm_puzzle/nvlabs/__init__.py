"""Block libraries that NVIDIA has released: imported, searched, compared with published models."""
