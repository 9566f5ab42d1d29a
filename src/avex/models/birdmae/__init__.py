"""Bird-MAE, masked autoencoders pre-trained on BirdSet, in three sizes."""
