"""Sends what was seen to another taskscope. Standard library only: wrappers of commands import it, too."""
