"""ResNet-18 to ResNet-152 on log-mel spectrograms."""
