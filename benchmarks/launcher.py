"""
Starts processes for ``processes.py``, and says what each has used. It is small itself, because the
system counts for a process what its parent had when it was started.
"""

import os
import sys
import time

NOTHING = [
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
]

for line in sys.stdin:
    command, environ, cwd = (part.split("\x1f") for part in line.rstrip("\n").split("\x1e"))
    os.chdir(cwd[0])
    variables = dict(pair.split("=", 1) for pair in environ if pair)
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], command, variables, file_actions=NOTHING)
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - begun
    print(seconds, used.ru_maxrss, os.waitstatus_to_exitcode(status), flush=True)
