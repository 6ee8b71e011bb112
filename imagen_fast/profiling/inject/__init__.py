"""A folder for Python's path, and a package so that it is installed: see `sitecustomize` here."""
