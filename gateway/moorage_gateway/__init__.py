"""The data plane: one OpenAI-compatible endpoint in front of every model, fed by watches, measuring what it serves."""
