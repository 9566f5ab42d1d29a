"""ATST-Frame, a self-supervised encoder with one embedding every 40 ms."""
