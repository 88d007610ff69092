"""What several papers share: backbones, and modules that look around (pyramids). A paper's own parts are in `models`.

Names of parameters are those of the shipped weights: keep them.
"""
