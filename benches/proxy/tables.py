"""The summary as Markdown."""

from cases import CASES
from proxies import TITLES
from results import BASES, is_shared


def tables(summary):
    """A table for each case, a line for each proxy."""
    lines = []
    for case, proxies in summary.items():
        lines += ["", f"### {CASES[case].title}", ""]
        bases = [base for base in BASES if base in proxies]
        columns = columns_of(case, bases, summary)
        rows = [[TITLES[name], *(show(proxies[name]) for _, show in columns)] for name in TITLES if name in proxies]
        lines += aligned([["proxy", *(title for title, _ in columns)], *rows])
    return "\n".join(lines)


def columns_of(case, bases, summary):
    """Titles of columns, each with what makes its text from a proxy's figures."""
    ratios = [(f"x {TITLES[base]}", lambda figures, base=base: ratio_to(figures, base)) for base in bases]
    busy = ("core busy", lambda figures: f"{figures['core_share']['median']:.0%}")
    cpu = [("CPU us a request", median("cpu_us_per_request")), ("least to most", least_to_most("cpu_us_per_request"))]
    if CASES[case].idle:
        return [("KB a connection", median("bytes_per_connection", 1 / 1024)),
                ("least to most", least_to_most("bytes_per_connection", 1 / 1024)), *ratios]
    if CASES[case].paced:
        return [("added us p50", median("added_us_p50", digits=0)), ("least to most", least_to_most("added_us_p50", digits=0)),
                ("added us p99", median("added_us_p99", digits=0)), ("least to most", least_to_most("added_us_p99", digits=0)),
                ("first byte us (p50, p99)", pair("first_us_p50", "first_us_p99", 1, 0)), cpu[0], busy]
    if case == "sse":
        return [("CPU us a stream", median("cpu_us_per_request", digits=0)), ("CPU us a chunk", median("cpu_us_per_chunk")),
                ("least to most", least_to_most("cpu_us_per_chunk")), *ratios,
                ("first event ms (p50, p99)", pair("first_event_us_p50", "first_event_us_p99", 1e-3, 2)),
                ("event delay us (p50, p99)", pair("event_delay_us_p50", "event_delay_us_p99", 1, 0)), busy]
    speed = [("requests/s", unless_shared(median("requests_per_s", digits=0))),
             ("latency ms (p50, p99)", unless_shared(pair("p50_us", "p99_us", 1e-3, 2))), busy]
    return [*cpu, *ratios, *beside_one_worker(case, summary), *speed]


def beside_one_worker(case, summary):
    """Of a load with two workers, what it is in terms of the same with one; nothing if that was not measured."""
    if CASES[case].workers == 1 or "get" not in summary:
        return []
    ones = {id(figures): summary["get"].get(name) for name, figures in summary[case].items()}

    def beside(key):
        def show(figures):
            one = ones[id(figures)]
            return f"{figures[key]['median'] / one[key]['median']:.2f}" if one else "-"
        return show

    return [("CPU x one worker", beside("cpu_us_per_request")),
            ("requests/s x one worker", unless_shared(beside("requests_per_s")))]


def ratio_to(figures, base):
    return f"{figures['ratio_to'][base]['median']:.3g}" if base in figures["ratio_to"] else "-"


def median(key, scale=1.0, digits=1):
    return lambda figures: f"{figures[key]['median'] * scale:.{digits}f}"


def least_to_most(key, scale=1.0, digits=1):
    return lambda figures: f"{figures[key]['min'] * scale:.{digits}f} to {figures[key]['max'] * scale:.{digits}f}"


def pair(first, second, scale, digits):
    return lambda figures: ", ".join(median(key, scale, digits)(figures) for key in (first, second))


def unless_shared(show):
    return lambda figures: "-" if is_shared(figures) else show(figures)


def aligned(rows):
    """Rows of text as a Markdown table whose columns line up."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |" for cells in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
