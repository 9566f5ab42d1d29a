"""HuBERT, as AVES and BirdAVES use it: a transformer on raw waveforms."""
