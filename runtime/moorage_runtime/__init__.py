"""The inference runtime: one server over one model, and the fetch that brings the model. Neither knows Kubernetes."""
