"""The upstream task."""

MAIN_CLASSES = 384
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
