"""Model files, read without torch: what both the API process and the engine know of GGUF and safetensors."""
