"""How often: counting windows, calls in flight, and the storage they live in."""
