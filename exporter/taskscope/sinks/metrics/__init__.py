"""The numbers that Prometheus scrapes: declared once, rendered from memory."""
