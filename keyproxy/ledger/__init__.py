"""SQLite: the rows of calls, the file they stand in, who writes and who asks."""
