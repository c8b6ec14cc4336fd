"""For those who watch: metrics and the dashboard. Reads records; no step of a call knows of it."""
