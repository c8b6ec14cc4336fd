"""A call at one home after the other, until one of them answers it."""
