"""One pass over the images: every metric at every layer."""
