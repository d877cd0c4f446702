"""roofseg: which segmentation architecture maps roofs best, from a few dozen labelled tiles."""

__version__ = "0.1.0"
