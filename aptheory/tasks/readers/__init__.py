"""One reader a layout on disk or on a hub."""
