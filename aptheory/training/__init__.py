"""Fitting a method, from kept activations, many runs as one batch."""
