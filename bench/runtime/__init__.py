"""Streamed tokens per second of our runtime beside its peers, on this machine, in one run."""
