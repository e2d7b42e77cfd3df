"""How many CPUs there are, and by how many threads a network of some size is best computed.

torch.set_num_threads(threads_for(model.num_parameters()))
"""

import os

# A network of fewer parameters is computed in operations of some ten microseconds: to divide them among threads takes
# as long as to compute them, and where other work runs beside, each waits for a thread that has no CPU.
SMALL = 30_000_000


def usable_cpus() -> int:
    """How many CPUs this process may use; a container or `taskset` may leave it fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_for(num_parameters: int) -> int:
    """The threads that a network on the CPU is computed by, unless `OMP_NUM_THREADS` says how many."""
    if "OMP_NUM_THREADS" in os.environ:
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return 1 if num_parameters < SMALL else usable_cpus()
