"""What the gateway adds to a request, and what it costs."""
