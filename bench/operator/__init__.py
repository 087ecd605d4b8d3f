"""What the operator costs with many LLMDeployments: `make bench-operator`."""
