"""Bytes: connections of clients and to the upstream, what is read and refused on them."""
