"""Time `hellods inspect` as a whole process, and list which heavy packages it imports.

python tests/benchmarks/inspect_time.py ARCHIVE
"""

import statistics
import subprocess
import sys
import time

from common import record

RUNS = 21
HEAVY = ("torch", "numpy", "PIL", "rich", "zstandard")


def main() -> None:
    command = ["hellods", "inspect", sys.argv[1]]
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    look = f"import sys, hellods_cli; hellods_cli.main({command[1:]!r}, standalone_mode=False)"
    probe = f"{look}; print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stderr.split()
    record(
        "inspect",
        {
            "runs": RUNS,
            "median_seconds": round(statistics.median(seconds[1:]), 3),
            "fastest_seconds": round(min(seconds[1:]), 3),
            "heavy_packages_imported": [name for name in HEAVY if name in loaded],
        },
    )


if __name__ == "__main__":
    main()
