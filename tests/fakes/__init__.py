"""Nine fake providers: each with its own address, key, dialects, strictness, errors, and books.

``vendors`` is the table; ``server`` runs them. What they are made from: the vendors' documentation
and threads as of November 2026; the shapes of their answers are held to ``tests/wire``.
"""
