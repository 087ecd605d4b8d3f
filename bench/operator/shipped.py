"""The operator as its image has it: `python -m bench.operator.shipped FLAGS…`.

Kubernetes' official client is on this machine for the tests. The image is without it; kopf loads it wherever it is.
"""

import importlib
import sys


def main() -> None:
    """Run the operator."""
    absent: dict[str, None] = {"kubernetes": None}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None is how the import system notes that there is none
    importlib.import_module("moorage_operator.shell.main").main()


if __name__ == "__main__":
    main()
