"""Model families, the base class they share, and the functions that find, build and load them."""
