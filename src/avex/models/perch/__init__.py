"""Perch v2, Perch v1 and SurfPerch (Google): 32 kHz, windows of 5 s, run from ONNX files."""
