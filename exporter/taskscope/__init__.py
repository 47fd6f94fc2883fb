"""taskscope: metrics, history and API for everything that runs jobs."""

__version__ = "0.1.0"
