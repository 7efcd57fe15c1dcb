"""Tasks: processes and threads, scheduling, signals, program execution, futexes, timers.

    task.py      the task and what threads share             pid.py       numbers, process groups, sessions
    sched.py     who runs next, sleeping and waking          timers.py    deadlines on the kernel's clock
    signal.py    sending signals and signal state            deliver.py   what happens on the way back to user mode
    sigframe.py  the frame on the user's stack               fork.py exec.py binfmt_elf.py exit.py wait.py futex.py
    kill.py      one task signals others                     jobctl.py pgrp.py  stopping, continuing, orphaned groups
    cred.py      who a task is and what it may do            posix_timers.py itimers.py cpu_timers.py rseq.py pidfd.py

What the kernel object must own for this package (all made in its constructor)::

    kernel.pids    = PidTable();  kernel.tasks = kernel.pids.tasks
    kernel.sched   = Scheduler(kernel)
    kernel.timers  = Timers()
    kernel.futexes = FutexTable()
    kernel.vdso    = Vdso(kernel)
    kernel.init_task = create_init_task(kernel)      # kernel/task/fork.py: pid 1, never runs, reaps orphans
"""
