"""What a result depends on besides its configuration: versions and machine."""
from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("lintransformer", "numpy", "scipy", "matplotlib", "threadpoolctl", "tqdm", "jinja2")


def versions() -> dict:
    """Return the versions of Python and the packages, without importing them; None if not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict:
    """Return processor, cores this process may use, and system."""
    return {"processor": _processor(), "cores": available_cores(),
            "system": f"{platform.system()} {platform.machine()}"}


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
