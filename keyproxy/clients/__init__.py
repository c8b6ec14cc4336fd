"""Who is calling: from a connection and its credential to a client."""
