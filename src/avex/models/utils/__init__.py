"""Finding, describing, building and loading models (module names are fixed by the public documents)."""
