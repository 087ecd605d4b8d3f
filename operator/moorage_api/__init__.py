"""The custom resources: what a person writes, what the operator answers, and the words that all three programs share.

This package imports nothing of ours and does no I/O, so that every program, test and tool may use it.
"""
