"""For all tests: threads that wait must sleep.

By default the threads of OpenMP spin while they wait for each other. On a machine that does anything else at the same
time, small tensors then take twenty times longer. Set before torch is imported, and inherited by child processes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
