"""`scripts/fuzz`, `scripts/faults`, `scripts/soak` and `scripts/trace`: broken input, failing disks, long runs, system calls."""
