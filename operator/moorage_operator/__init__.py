"""The operator: decides what each LLMDeployment needs, writes it and reports. It never touches a request."""
