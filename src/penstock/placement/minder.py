"""The parent of one replica: starts it, and sees to it that nothing of it is left, whoever dies first.

Run as a program of its own, on the standard library alone: `python -I -S minder.py STDOUT_FD PROGRAM ARGUMENT…`. Owns the replica's
process tree. It must never import anything of Penstock: a start is to cost milliseconds.

Standard input is the lifeline. "T" on it sends SIGTERM to the replica, "K" kills its whole tree, and so does its end, which comes when
the process that holds the other end dies, by whatever death. On standard output it tells "pid N", then "exit STATUS". Being the subreaper
of all that the replica starts, it also finds what has left the replica's process group; killed itself, it takes the replica along.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    output, argv = int(sys.argv[1]), sys.argv[2:]
    minder = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    # Blocked over the fork: a SIGTERM that comes before the child has taken back the default waits, instead of being ignored.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    child = os.fork()
    if child == 0:
        become(libc, output, argv, minder)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    os.close(output)
    tell(f"pid {child}")
    attend(child, awake)
    end_everything(child)
    os._exit(0)


def become(libc: ctypes.CDLL, output: int, argv: list[str], minder: int) -> None:
    """In the child: turn into the replica. Never returns."""
    try:
        os.setsid()
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != minder:  # it died before the call above
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.close(output)
        os.execvpe(argv[0], argv, given_environment())
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def given_environment() -> dict[bytes, bytes]:
    """The environment as it was given: Python may have put LC_CTYPE into its own."""
    with open("/proc/self/environ", "rb") as file:
        variables = (v.partition(b"=") for v in file.read().split(b"\0") if v)
        return {name: value for name, _, value in variables}


def attend(child: int, awake: int) -> None:
    """Carry out what the lifeline says until the replica has exited or is to be killed."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(awake, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == awake:
                with contextlib.suppress(BlockingIOError):
                    os.read(awake, 4096)
                if reap(child)[0]:
                    return
                continue
            said = os.read(0, 64)
            if not said or b"K" in said:
                return
            # The child is not reaped yet, so its number is still its own.
            os.kill(child, signal.SIGTERM)


def reap(child: int) -> tuple[bool, bool]:
    """Collect what has ended, and tell of `child`: whether it was among it, and whether no process is left."""
    ended = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, True
        if pid == 0:
            return ended, False
        if pid == child:
            ended = True
            tell(f"exit {os.waitstatus_to_exitcode(status)}")


def end_everything(child: int) -> None:
    """SIGKILL every descendant, again and again until none is left: what a dead one leaves behind becomes our child."""
    while not reap(child)[1]:
        for pid in descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.005)


def descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def tell(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main()
