"""How the packaged networks' weights are made again; not part of the installed package."""
