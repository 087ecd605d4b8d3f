"""The model computed by torch's own operations: the reference, the fallback on processors, and the way to a GPU.

What every device shares:

- `llama`: the forward pass; `rope`: its rotary embedding; `cache`: the paged keys and values;
- `batch`: the rows of a step; `runner`: plan in, tokens out; `load`: what the start of an engine asks for.

Attention comes in two forms, both chosen in `runner`:

- `gathered`: keys and values are gathered from their blocks, then torch's own attention. Runs everywhere.
- `paged`: blocks are read where they lie, by the Triton kernel in `paged_kernel`. GPU only.

Only a processor: the packed oneDNN products of `linear`. Only a GPU: `paged`, `graphs` (decoding steps captured as CUDA
graphs), `gpu_sampler`, and `gpu` (which type, how much memory, the capture itself).

Not promised here: that a row's bits do not depend on its neighbours. oneDNN and cuBLAS choose their kernel by the
number of rows, so a request computed alone and in a batch may differ in the last bits, and where two tokens are as good
as equally likely, in the token. The C++ kernels (`moorage_runtime.kernels`) do promise it. Promised is equality with
transformers in float32 (tests/model/test_engine_equality.py).
"""
