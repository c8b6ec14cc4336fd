"""Bodies read strictly, whole, in pieces or in turn."""
