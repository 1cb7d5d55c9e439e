"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from contextlib import suppress
from glob import glob
from importlib import metadata
from pathlib import Path
from typing import Any


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def waited() -> float:
    """Seconds that threads of this process have been ready to run and had no processor; 0 where Linux doesn't tell."""
    nanoseconds = 0
    for file in glob("/proc/self/task/*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # threads end
            nanoseconds += int(Path(file).read_text().split()[1])
    return nanoseconds * 1e-9


def used_by_others() -> float:
    """Seconds that all processors have worked for other programs or machines; 0 where Linux doesn't tell."""
    try:
        user, nice, system, _, _, *interrupts_and_stolen = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
        ticks = sum(map(int, (user, nice, system, *interrupts_and_stolen)))
    except (OSError, ValueError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
    }
