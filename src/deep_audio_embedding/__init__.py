"""Audio embeddings from JSON templates: load, install, import, initialise, pre-process, compute.

Standard library only.
"""
