"""Datasets of other packages as clips: alp-data, Hugging Face `datasets`."""
