"""Scale-aware text detection: predict where text is and how large, then spend pixels there."""

from adaptive.core.registry import announce

# Quadformer may ask for text saliency by name; the network behind it is heavy to import.
announce("prior", "text", "adaptive.textscale.text_prior")
