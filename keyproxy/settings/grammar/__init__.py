"""How the text of a setting is read: one small parser per kind of value.

Knows no variable names, no modes and no files. A parser returns the value or raises
``Unfit``; what that says is shown to the operator, so it never holds a secret.
"""
