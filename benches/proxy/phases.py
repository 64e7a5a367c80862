"""The phases of a run. In each, proxies are started, checked, measured in turn, round after round, and ended."""

import contextlib
import signal
import time
from http.client import HTTPException

import idle
import load as loads
import proxies
import results
from cases import CASES, CHUNKS, GAP_MS
from processes import Failure, Process, cpu_ns, free_port, wait_until
from verify import verify

# Half of what the slowest proxy can do.
HALF = 0.5
# Memory differs less from round to round than times do.
IDLE_ROUNDS_MAX = 3
# All proxies together must be idle for so many seconds before a sample (5% of a core), for which that many are waited.
SETTLED, SETTLED_SHARE, SETTLE_MAX = 0.1, 0.05, 5


class Phase:
    """Proxies with so many workers, on cores of their own if there are enough, and the backend with the load on the others."""

    def __init__(self, found, workers, cores, programs, directory, options):
        self.found, self.wanted = list(found), len(found)
        self.workers, self.options, self.directory = workers, options, directory
        # The kernel would move the load to where the proxy leaves room, so that on fewer cores all get their share of all.
        self.shared = len(cores) < 2 * workers
        self.proxy_cores = ",".join(map(str, cores[-workers:]))
        self.load_cores = ",".join(map(str, cores if self.shared else cores[:-workers]))
        self.programs = programs
        self.samples, self.verified, self.without_proxy = [], {}, {}
        self.idle_share, self.memory_kib = {}, {}

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        with contextlib.ExitStack() as begun:
            self.directory.mkdir(mode=0o755)
            self.backend = self.start_backend(begun)
            self.place = proxies.Place(self.backend_port, self.directory.parent)
            self.load = loads.Load(self.backend, self.programs, self.load_cores, self.directory, self.options)
            self.stack = begun.pop_all()
        return self

    def __exit__(self, *raised):
        return self.stack.__exit__(*raised)

    def start_backend(self, stack):
        self.backend_port = free_port()
        command = [self.programs["backend"], "--listen", f"127.0.0.1:{self.backend_port}", "--chunks", CHUNKS,
                   "--gap-ms", GAP_MS]
        backend = Process("backend", command, self.load_cores, self.directory)
        stack.callback(backend.end)
        wait_until(lambda: loads.answers(self.backend_port, "/"), "the backend is to answer", backend)
        return backend

    def start(self, proxy, directory):
        """Starts a proxy. Call `end` for it in any case."""
        proxy.start(self.place, self.proxy_cores, self.workers, self.directory / directory)

    def start_and_verify(self, over_tls):
        """Starts every proxy and checks its answers. One that fails takes no further part, with a line that says why."""
        for proxy in list(self.found):
            # Before the start, which may fail half-way.
            self.stack.callback(proxy.end)
            try:
                self.start(proxy, proxy.name)
                self.verified[proxy.name] = seen = verify(proxy, self.load, self.place.certificate if over_tls else None)
                ports = f"{proxy.port}, over TLS {proxy.tls_port}" if "tls" in seen else proxy.port
                print(f"Right answers: {proxy.title} ({proxy.version}; pid {proxy.process.popen.pid}, port {ports}): "
                      f"{stream_of(seen)}.", flush=True)
            except (Failure, OSError, ValueError, HTTPException) as failure:
                print(f"FAILED: {proxy.title}: {failure}", flush=True)
                self.found.remove(proxy)
        if not self.found:
            raise Failure("no proxy gave right answers")

    def hold(self):
        """Waits until somebody ends it."""
        print("Holding until Ctrl-C.", flush=True)
        signal.pause()

    def measure(self, cases):
        """Warms every proxy up, then measures all in turn, round after round."""
        options = self.options
        print(f"Warm-up, then {options.rounds} rounds of {options.seconds} s for each proxy and load.", flush=True)
        self.find_rates(cases)
        for name in cases:
            if not (CASES[name].tls or CASES[name].paced or self.shared):
                self.without_proxy[name] = self.load.run(name, self.backend_port, 1)
            for proxy in self.taking(name):
                with contextlib.suppress(Failure):  # it fails again, and is reported, in round 1
                    self.load.run(name, proxy.port_of(name), 1)
        idle_ns, wall_ns = ({proxy.name: 0 for proxy in self.found} for _ in range(2))
        for number in range(1, options.rounds + 1):
            for name in cases:
                self.one_round(name, number, idle_ns, wall_ns)
            print(f"Round {number} of {options.rounds} is done.", flush=True)
        self.idle_share = {name: idle_ns[name] / wall for name, wall in wall_ns.items() if wall}
        self.memory_kib = {proxy.name: proxy.process.memory_kib() for proxy in self.found}

    def taking(self, name):
        """The proxies that take part in a load."""
        return [proxy for proxy in self.found if name in proxy.cases]

    def find_rates(self, cases):
        """The rates of the paced loads, the same for all proxies: half of what the slowest one could do with its core full."""
        for name in cases:
            if CASES[name].paced:
                costs = {}
                for proxy in self.taking(name):
                    with contextlib.suppress(Failure):  # reported in round 1, if it goes on
                        costs[proxy.title] = loads.measure(proxy, CASES[name].ask, self.load, 1)["cpu_us_per_request"]
                if not costs:
                    raise Failure(f"no proxy could be loaded to find the rate of `{name}`")
                slowest = max(costs, key=costs.get)
                self.load.rates[name] = round(HALF * 1e6 / costs[slowest], 1)
                print(f"{CASES[name].title}: {self.load.rates[name]:.0f} a second, half of what fills the core of {slowest} "
                      f"({costs[slowest]:.0f} us of CPU time each).", flush=True)

    def one_round(self, name, number, idle_ns, wall_ns):
        """A sample of each proxy, and what the others did meanwhile."""
        turns = self.taking(name)
        # Not always the same one first, and so behind another load, and always the same one behind the same other one.
        first = (number - 1) % len(turns) if turns else 0
        for proxy in turns[first:] + turns[:first]:
            self.settle()
            others = [other for other in self.found if other is not proxy]
            before, began_ns = [cpu_ns(other.process.pids()) for other in others], time.monotonic_ns()
            self.samples.append({"round": number, "case": name, "proxy": proxy.name} | self.sample(proxy, name))
            for other, was in zip(others, before):
                idle_ns[other.name] += cpu_ns(other.process.pids()) - was
                wall_ns[other.name] += time.monotonic_ns() - began_ns
            if not proxy.process.is_running():
                self.found.remove(proxy)  # its last sample says why it ended

    def settle(self):
        """Waits until the proxies have done what was asked of them: a slow one goes on for a while when its clients have left."""
        deadline = time.monotonic() + SETTLE_MAX
        while time.monotonic() < deadline:
            before = sum(cpu_ns(proxy.process.pids()) for proxy in self.found)
            time.sleep(SETTLED)
            used = sum(cpu_ns(proxy.process.pids()) for proxy in self.found) - before
            if used < SETTLED_SHARE * SETTLED * 1e9:
                return

    def sample(self, proxy, name):
        """One sample; while other programs disturb it, another one, as often as --patience allows."""
        patience = self.options.patience
        try:
            for retaken in range(patience + 1):
                taken = self.paced(proxy, name) if CASES[name].paced else self.loaded(proxy, name)
                if taken["others_share"] <= results.OTHERS_MAX:
                    break
                if retaken < patience:
                    time.sleep(1)
            return taken | {"retaken": retaken, "shared_cores": self.shared}
        except Failure as failure:
            return {"rejected": str(failure)}

    def loaded(self, proxy, name):
        return loads.measure(proxy, name, self.load, self.options.seconds)

    def paced(self, proxy, name):
        """The same, and right before it the backend asked directly."""
        direct = self.load.run(name, self.backend_port, self.options.seconds)
        taken = self.loaded(proxy, name)
        added = {key: taken["first_us"][key] - direct["first_us"][key] for key in ("p50", "p99")}
        return taken | {"direct": direct, "added_us": added}

    def measure_idle(self, cases):
        """Memory for idle connections: each sample is a process of its own, since what was given back is not always let go of."""
        rounds = min(self.options.rounds, IDLE_ROUNDS_MAX)
        print(f"Memory of {self.options.idle_connections} idle connections, {rounds} rounds.", flush=True)
        for number in range(1, rounds + 1):
            for name in cases:
                for proxy in self.taking(name):
                    sample = {"round": number, "case": name, "proxy": proxy.name}
                    try:
                        self.start(proxy, f"{proxy.name}-{name}-{number}")
                        sample |= idle.measure(proxy, name, self.load, self.options.idle_connections)
                    except (Failure, OSError) as failure:
                        sample["rejected"] = str(failure)
                    finally:
                        proxy.end()
                    self.samples.append(sample)
            print(f"Round {number} of {rounds} is done.", flush=True)


def stream_of(seen):
    """What verification saw of a stream, as people read it."""
    if "stream_ms" not in seen:
        return "chat completions only"
    return (f"first event after {seen['first_event_ms']:.1f} ms of a stream of {seen['stream_ms']:.0f} ms, "
            f"{seen['http_chunks_per_stream']:.0f} chunks")
