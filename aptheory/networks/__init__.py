"""A model as a list of layers, and attention that can be seen."""
