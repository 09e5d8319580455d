"""Notebooks, and the script that writes them."""
