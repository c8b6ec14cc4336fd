"""The application: routes, assembly, process."""
