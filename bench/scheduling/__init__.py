"""Scheduling policies with more requests than may run: FastServe's experiment (arXiv:2305.05920) in small."""
