"""Starting, pinning, measuring and ending the processes of the benchmark."""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import time

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """What went wrong, in one sentence for the person who runs the benchmark."""


class Process:
    """A server that was started here, on cores of its own, and ends with this script."""

    def __init__(self, name, command, cores, directory):
        self.name = name
        self.log = directory / f"{name}.log"
        # setpriv: should this script be killed outright, the kernel still ends what it started.
        pinned = ["taskset", "--cpu-list", cores, "setpriv", "--pdeathsig", "TERM", *map(str, command)]
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(pinned, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True)

    def pids(self):
        """The process and all its descendants, such as the workers of nginx."""
        children = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = stat_fields(entry)
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.popen.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def is_running(self):
        """Whether the process that was started here still runs."""
        return self.popen.poll() is None

    def require_running(self):
        """Raises Failure with the end of the log if the process has ended."""
        if not self.is_running():
            raise Failure(f"{self.name} ended with code {self.popen.returncode}; its last words: {self.last_words()}")

    def last_words(self):
        """The end of what it printed, on one line."""
        lines = self.log.read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:]) or "none"

    def memory_kib(self):
        """Resident memory now, summed over its processes."""
        total = 0
        for pid in self.pids():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        return total

    def end(self):
        """Asks it to stop, and after 5 s makes it."""
        pids = self.pids()
        if self.is_running():
            self.popen.terminate()
            try:
                self.popen.wait(5)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        # A master that had to be killed leaves workers; they are still in the session that was made for them.
        for pid in pids[1:]:
            try:
                if os.getsid(pid) == self.popen.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def stat_fields(directory):
    """The fields of /proc/PID/stat from the state on; None if the process is gone."""
    try:
        return (directory / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_ns(pids):
    """CPU time, user and system, of these processes with all their threads, living and ended, in nanoseconds.

    This is the kernel's CPU clock of another process (clock_getcpuclockid(3)): the sum of what /proc/PID/task/*/schedstat
    says of each thread, but up to date and without losing threads that have ended.
    """
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)
    except OSError:
        raise Failure("a process ended while it was measured") from None


def machine_busy_ns():
    """Time that all cores together have not been idle since boot, in nanoseconds, to a clock tick (10 ms)."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // CLOCK_TICKS_PER_S


def ended_children_ns():
    """CPU time of the programs that this script ran and that have ended, in nanoseconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((used.ru_utime + used.ru_stime) * 1e9)


def free_port():
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, process, seconds=30):
    """Waits until `condition()` is true; Failure if `process` ends before, or it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        process.require_running()
        if time.monotonic() > deadline:
            raise Failure(f"{what} within {seconds} s, and did not; its last words: {process.last_words()}")
        time.sleep(0.05)
