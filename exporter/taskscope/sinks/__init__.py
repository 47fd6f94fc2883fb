"""What is done with events: metrics, history."""
