"""The API behind us: keys, headers, sending, the catalogue."""
