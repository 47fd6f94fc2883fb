"""The memory of every run: merged exactly, kept durably, queried quickly."""
