"""CLIP-style joint embeddings of audio (EfficientNet) and text (RoBERTa)."""
