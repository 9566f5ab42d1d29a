"""From recordings to embeddings: sources, the pipeline, engines and stores."""
