"""BirdNET v2.4 (Kahl et al. 2021): 48 kHz, windows of 3 s, 6,522 species, embeddings of 1,024."""
