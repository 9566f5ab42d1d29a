"""JSON templates (`deep_audio_embedding`) as models of avex: cards, trust, and the model itself.

`cards` and `trust` need no torch; `model` does.
"""
