"""The model room: the only one that imports torch. Loading, forward pass, KV cache, sampler, engine process."""
