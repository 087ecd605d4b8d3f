"""What a start waits for: torch takes seconds to load, and the kernels' way does without it and its like."""

import subprocess
import sys

CODE = """
import sys
from pathlib import Path
from moorage_runtime.model.process import main
from moorage_runtime.model.checkpoint import open_checkpoint
from moorage_runtime.model.sampler import sample
from moorage_runtime.model.weights import floats_of
checkpoint = open_checkpoint(Path(sys.argv[1]), "Int4")
rounded = checkpoint.stored("model.embed_tokens.weight")
assert rounded.format == "Q8_0" and floats_of(rounded).any()
print(*sorted({"torch", "gguf", "transformers", "safetensors"} & set(sys.modules)))
"""


def test_reading_rounding_and_sampling_load_neither_torch_nor_any_reader_of_models(small_model):
    done = subprocess.run([sys.executable, "-c", CODE, small_model], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
