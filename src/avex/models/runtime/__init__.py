"""Graph files (TFLite, ONNX) run as they are, without torch."""
