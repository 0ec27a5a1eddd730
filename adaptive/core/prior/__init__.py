"""Saliency and prior estimators: where in an image compute is worth spending."""
