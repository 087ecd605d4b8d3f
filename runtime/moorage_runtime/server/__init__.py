"""The API process: OpenAI's routes over HTTP, health, metrics. It never loads torch."""
