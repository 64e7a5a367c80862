"""From samples to medians and ratios, and what is to be said of them."""

import statistics

from cases import CASES
from proxies import TITLES

# What a proxy is compared with, in the order of the columns.
BASES = ("haproxy", "nginx", "envoy", "smg", "litellm", "bare")
# All that Tradewind adds to a bare Pingora proxy must stay under this share of it.
ADDED_MAX = 0.10
# Most memory of an idle connection, in bytes.
IDLE_BYTES_MAX = 8 * 1024
# At half load: what may not be more than another proxy's (case, percentile, that proxy).
HALF_LOAD_GOALS = (("sse-half", "p50", "nginx"), ("get-half", "p99", "envoy"), ("sse-half", "p99", "envoy"))
# Above this share of the machine, other programs disturb caches and siblings enough to be seen in the figures.
OTHERS_MAX = 0.05
# A median is doubtful when its samples lie further apart than this share of it.
SPREAD_MAX = 0.20
# Above this share of chunks put together with others, the CPU time a chunk is too low for what was asked.
MERGED_MAX = 0.02
# A proxy's core is not full below this share of it.
FULL_MIN = 0.9
# At half load, a core that is busier than this has too little left for "half" to be true.
HALF_BUSY_MAX = 0.75
# Sent so long after they were due, in microseconds: 1% of the requests, where the load itself is late; half of them, where a proxy
# did not keep up, so that they had to wait for a connection.
LATE_US_MAX = 1000

FIGURES = ("cpu_us_per_request", "cpu_us_per_chunk", "requests_per_s", "core_share", "others_share", "p50_us", "p99_us",
           "chunks_kept_share", "bytes_per_connection", "shared_cores")
# Figures with percentiles of their own.
SPREADS = ("first_event_us", "event_delay_us", "added_us", "first_us", "late_us")


def cost_of(case):
    """The figure of a load by which proxies are compared."""
    return "bytes_per_connection" if CASES[case].idle else "cpu_us_per_request"


def spread(values):
    """Median, least and most of some numbers; None for none."""
    values = list(values)
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(samples):
    """Per case and proxy the spread of each figure over the rounds, and the ratios to the others.

    A ratio is made within a round, from samples taken seconds apart, and the median is taken of the ratios: what slows the
    whole machine for a while slows both.
    """
    summary = {}
    for case in CASES:
        of_case = {}
        for sample in samples:
            if sample["case"] == case and "rejected" not in sample:
                of_case.setdefault(sample["proxy"], {})[sample["round"]] = sample
        if of_case:
            summary[case] = {name: summarise_proxy(rounds, of_case, cost_of(case)) for name, rounds in of_case.items()}
    return summary


def summarise_proxy(rounds, of_case, cost_key):
    first = next(iter(rounds.values()))
    out = {key: spread(sample[key] for sample in rounds.values()) for key in FIGURES if key in first}
    for key in SPREADS:
        if key in first:
            for point in ("p50", "p99"):
                out[f"{key}_{point}"] = spread(sample[key][point] for sample in rounds.values())
    if "direct" in first:
        out["direct_late_us_p99"] = spread(sample["direct"]["late_us"]["p99"] for sample in rounds.values())
    out["ratio_to"] = {}
    for base in BASES:
        both = rounds.keys() & of_case.get(base, {}).keys()
        cost = [(rounds[i][cost_key], of_case[base][i][cost_key]) for i in sorted(both)]
        if cost and all(theirs > 0 for _, theirs in cost):
            out["ratio_to"][base] = spread(mine / theirs for mine, theirs in cost)
    return out


def verdict(summary):
    """What Tradewind does, case by case, against what it must."""
    lines = [line for case, proxies in summary.items() if (line := verdict_of(case, proxies))]
    for case, point, other in HALF_LOAD_GOALS:
        proxies = summary.get(case, {})
        if "tradewind" in proxies and other in proxies:
            mine, theirs = (proxies[name][f"added_us_{point}"]["median"] for name in ("tradewind", other))
            met = "met" if mine <= theirs else "MISSED"
            lines.append(f"{CASES[case].title}: Tradewind adds {mine:.0f} us to the {point}, {TITLES[other]} {theirs:.0f} us, "
                         f"which it must not exceed: {met}.")
    return "\n".join(lines)


def verdict_of(case, proxies):
    """Its memory against the limit; else what it adds to a bare Pingora proxy."""
    mine = proxies.get("tradewind", {})
    if CASES[case].idle and mine:
        held = mine["bytes_per_connection"]["median"]
        met = "met" if held <= IDLE_BYTES_MAX else "MISSED"
        return (f"{CASES[case].title}: Tradewind holds {held / 1024:.1f} KB; it must not exceed {IDLE_BYTES_MAX // 1024} KB: "
                f"{met}.")
    ratio = mine.get("ratio_to", {}).get("bare")
    if not ratio or CASES[case].paced:
        return None
    met = "met" if ratio["median"] - 1 < ADDED_MAX else "MISSED"
    if ratio["min"] - 1 < ADDED_MAX <= ratio["max"] - 1:
        met += " by the median, but not in every round"
    median, least, most = (f"{ratio[key] - 1:+.1%}" for key in ("median", "min", "max"))
    return (f"{CASES[case].title}: Tradewind adds {median} to bare Pingora ({least} to {most} over the rounds); "
            f"it must stay under {ADDED_MAX:.0%}: {met}.")


def warnings(summary, samples):
    """What makes the figures doubtful."""
    lines = []
    for sample in samples:
        if "rejected" in sample:
            lines.append(f"FAILED: {TITLES[sample['proxy']]}, {CASES[sample['case']].title}, round {sample['round']}: "
                         f"{sample['rejected']}. This sample is left out.")
    others = [figures["others_share"]["median"] for proxies in summary.values() for figures in proxies.values()
              if "others_share" in figures]
    if others and max(others) > OTHERS_MAX:
        lines.append(f"NOISY: other programs used up to {max(others):.0%} of the machine. Repeat it on a quiet one.")
    for case, proxies in summary.items():
        lines += unstable(case, proxies)
        lines += misloaded(case, proxies)
    for name, figures in summary.get("sse", {}).items():
        if (kept := figures["chunks_kept_share"]["median"]) < 1 - MERGED_MAX:
            lines.append(f"MERGED: {TITLES[name]} passed on {kept:.0%} of the chunks as chunks of their own, the rest "
                         "together with another, which costs less CPU.")
    return "\n".join(lines)


def unstable(case, proxies):
    for name, figures in proxies.items():
        cost = figures[cost_of(case)]
        width = (cost["max"] - cost["min"]) / cost["median"] if cost["median"] else 0
        if width > SPREAD_MAX:
            yield f"UNSTABLE: {TITLES[name]}, {CASES[case].title}: the samples lie {width:.0%} of their median apart."


def misloaded(case, proxies):
    """Cases in which the load was not what the case is about."""
    busy = {name: figures["core_share"]["median"] / CASES[case].workers for name, figures in proxies.items()
            if "core_share" in figures}
    if CASES[case].full:
        slack = [TITLES[name] for name, share in busy.items() if share < FULL_MIN and not is_shared(proxies[name])]
        if slack:
            yield (f"NOT FULL: {CASES[case].title}: {', '.join(slack)} used less than {FULL_MIN:.0%} of a core: the load or "
                   "another program was the limit, and the latency and requests/s say little.")
    if CASES[case].paced:
        over = [TITLES[name] for name, figures in proxies.items()
                if busy[name] > HALF_BUSY_MAX or figures["late_us_p50"]["median"] > LATE_US_MAX]
        if over:
            yield (f"NOT HALF: {CASES[case].title}: {', '.join(over)} used more than {HALF_BUSY_MAX:.0%} of a core or did not keep "
                   "up: the rate was found while the machine was faster. These times are those of a queue.")
        late = max(figures["direct_late_us_p99"]["median"] for figures in proxies.values())
        if late > LATE_US_MAX:
            yield (f"LATE: {CASES[case].title}: without any proxy, the load sent 1% of its requests more than {late:.0f} us "
                   "after they were due; p99 says little.")
    if any(map(is_shared, proxies.values())):
        yield (f"SHARED: {CASES[case].title}: fewer than {2 * CASES[case].workers} cores, so that proxy, backend and load shared "
               "them. CPU time a request can be compared, requests/s and latency can't and are left out.")


def is_shared(figures):
    """Whether the load had no cores of its own."""
    return "shared_cores" in figures and figures["shared_cores"]["max"] > 0
