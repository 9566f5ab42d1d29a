"""Training: probes on embeddings."""
