"""One script a figure: reads the tables in results/, writes a PDF and a PNG."""
