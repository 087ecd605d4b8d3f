"""Revision and context -> Kubernetes manifests, pure; one module for each kind of child."""
