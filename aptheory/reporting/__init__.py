"""Drawing it: plots, charts and the page."""
