"""A real Kubernetes for the demo and the end-to-end tests, and the images that run on it.

`python -m e2e.cluster --help` is the door for people; `provider.Provider` is the one for programs.
"""
