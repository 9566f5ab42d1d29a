"""Training: runs from a YAML file, their objectives and sweeps, and probes on embeddings."""
