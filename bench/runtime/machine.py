"""What was measured on: so that figures are not compared with those of another machine."""

import os
import platform
import re
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and the instruction sets that such servers are compiled for."""
    processor = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.*)$", processor, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.*)$", processor, re.MULTILINE)
    known = set(flags.group(1).split()) if flags else set()
    return {
        "processor": name.group(1) if name else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "instructions": sorted(known & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}),
    }
