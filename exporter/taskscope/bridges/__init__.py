"""Watchers: one file per scheduler; the file name is the name everywhere."""
