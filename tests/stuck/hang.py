"""Makes a file hang for whoever opens it, as one on a dead mount does: holds a lease on it, which the system waits for (45 s).

Says `held`, then `asked` when somebody waits for it. Ends when its standard input does.
"""

import fcntl
import os
import signal
import sys



def asked(_signal, _frame):
    print("asked", flush=True)


signal.signal(signal.SIGIO, asked)
file = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
except OSError as error:
    print(f"no leases here: {error}", flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
