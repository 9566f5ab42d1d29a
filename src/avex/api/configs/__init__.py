"""Model cards as data files."""
