"""BEATs: audio transformer with gated relative positions, pre-trained with acoustic tokenisers."""
