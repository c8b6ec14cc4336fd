"""One module for each command of ``keyproxy``."""
