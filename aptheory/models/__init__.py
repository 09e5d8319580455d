"""A trained method as something to use: fitted, kept in one file, asked, judged, exported."""
