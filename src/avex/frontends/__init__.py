"""From a waveform to a network's input; each front end is an `nn.Module`."""
