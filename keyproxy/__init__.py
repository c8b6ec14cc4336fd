"""keyproxy: a sidecar that holds an LLM provider key and serves the API key-free."""

__version__ = "0.1.0"
