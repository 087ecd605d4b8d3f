"""Proof and figures for the CUDA path, for whoever has a GPU at hand."""
