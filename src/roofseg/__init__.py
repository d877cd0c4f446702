"""roofseg: which segmentation architecture maps roofs best, from a few dozen labelled tiles."""
