"""Run a command, and write the time and the memory that it took: `launch.py REPORT COMMAND...`.

Run as a script of its own, with nothing but the standard library: Linux counts the memory that the parent holds at the
moment of the start into a new process's peak, so the parent must be small.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main(report: str, command: list[str]) -> None:
    """Start `command` with this process's standard streams, wait for it, and write `report` (JSON)."""
    clock = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, dict(os.environ))
    _, status, usage = os.wait4(pid, 0)
    found = {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
