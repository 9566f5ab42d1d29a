"""One module per table format, each with `write(target, recordings, ...)` and `read(path, ...)`."""
