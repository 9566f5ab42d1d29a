"""EAT, the efficient audio transformer: pre-trained, fine-tuned, and the encoders of ESP-AVES2."""
