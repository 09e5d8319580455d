"""One script a question: each runs alone, from the command line and from a notebook cell."""
