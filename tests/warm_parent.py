"""The process behind ``warm.py``. It runs under interpreters without this project: the standard library is all it has.

It imports the modules that it is given as arguments. Then it reads tasks, one a line, and forks itself for each: the
fork runs the code of the task, as ``python -c`` would. When that has ended its exit code is told.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time

for module in sys.argv[1:]:
    importlib.import_module(module)
gc.collect()
gc.freeze()  # no fork looks through what was imported again
while line := sys.stdin.readline():
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()

task = json.loads(line)
for path, number in ((os.devnull, 0), (task["stdout"], 1), (task["stderr"], 2)):
    os.dup2(os.open(path, os.O_RDWR), number)
os.environ.clear()
os.environ.update(task["environment"])
time.tzset()
os.chdir(task["cwd"])
sys.argv = ["-c", *task["arguments"]]
exec(compile(task["code"], "<string>", "exec", dont_inherit=True), {"__name__": "__main__"})
