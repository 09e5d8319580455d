"""Studies that resume, here or on a cluster."""
