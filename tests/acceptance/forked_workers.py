"""Workers that start at once, because they are forked from a process that has loaded everything.

Each line of standard input starts one: a point of `crashing_worker.py` at which it dies, or `none`. The
answer is a line with its process number, and one with its exit status when it has ended.
"""

import gc
import os
import sys

from crashing_worker import arm

from workers.__main__ import main

if __name__ == "__main__":
    gc.disable()  # what the forks share is not touched
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where workers print
    for line in sys.stdin:
        child = os.fork()
        if not child:
            gc.enable()
            if line.strip() != "none":
                arm(line.strip())
            os._exit(main())
        answers.write(f"{child}\n")
        answers.flush()
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()
