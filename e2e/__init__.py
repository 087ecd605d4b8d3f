"""The cluster tool, the demo, and the end-to-end cases. Not part of the distribution."""
