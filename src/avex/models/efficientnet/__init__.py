"""EfficientNet-B0 and B1 on log-mel spectrograms."""
