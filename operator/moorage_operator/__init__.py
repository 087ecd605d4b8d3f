"""The operator: decides what each LLMDeployment needs, writes it, and says how it stands. It never touches a request."""
