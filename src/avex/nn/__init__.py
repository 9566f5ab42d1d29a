"""Blocks that several networks share; each module is imported on its own."""
