"""The HTTP server: protocol, error rendering, application, process."""
