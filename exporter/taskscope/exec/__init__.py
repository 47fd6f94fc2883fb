"""`taskscope exec`: runs any command and tells a taskscope how it went. Standard library only, so that it starts soon.

Whatever of this fails, the command runs as it would have run by itself.
"""
