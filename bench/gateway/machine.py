"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

from bench.gateway import cpu


def describe() -> dict[str, object]:
    """Cores, processor, memory, kernel, and how busy the machine is before anything is started."""
    busy, at = cpu.machine_busy(), time.monotonic()
    time.sleep(1.0)
    busy = (cpu.machine_busy() - busy) / (time.monotonic() - at)
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cores": os.cpu_count(),
        "processor": model.group(1) if model else platform.machine(),
        "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "busy_cores_before": round(busy, 3),
    }
