"""From samples to medians, ratios and tables."""

import statistics

from load import CASES
from proxies import TITLES

# What a proxy is compared with, in the order of the columns.
BASES = ("haproxy", "nginx", "envoy", "smg", "litellm", "bare")
# All that Tradewind adds to a bare Pingora proxy must stay under this share of it.
ADDED_MAX = 0.10
# Above this share of the machine, other programs disturb caches and siblings enough to be seen in the figures.
OTHERS_MAX = 0.05
# A median is doubtful when its samples lie further apart than this share of it.
SPREAD_MAX = 0.20
# Above this share of chunks put together with others, the CPU time a chunk is too low for what was asked.
MERGED_MAX = 0.02


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
            summary[case] = {name: summarise_proxy(rounds, of_case) for name, rounds in of_case.items()}
    return summary


def summarise_proxy(rounds, of_case):
    figures = ("cpu_us_per_request", "cpu_us_per_chunk", "requests_per_s", "core_share", "others_share", "p50_us", "p99_us",
               "chunks_kept_share")
    out = {key: spread(sample[key] for sample in rounds.values()) for key in figures if key in next(iter(rounds.values()))}
    for key in ("first_event_us", "event_delay_us"):
        for point in ("p50", "p99"):
            values = [sample[key][point] for sample in rounds.values() if key in sample]
            if values:
                out[f"{key}_{point}"] = spread(values)
    out["ratio_to"] = {}
    for base in BASES:
        both = rounds.keys() & of_case.get(base, {}).keys()
        cost = [(rounds[i]["cpu_us_per_request"], of_case[base][i]["cpu_us_per_request"]) for i in sorted(both)]
        if cost:
            out["ratio_to"][base] = spread(mine / theirs for mine, theirs in cost)
    return out


def tables(summary):
    """The summary as Markdown."""
    lines = []
    for case, proxies in summary.items():
        lines += ["", f"### {CASES[case]}", ""]
        bases = [base for base in BASES if base in proxies]
        lines += aligned([header(case, bases)] + [row(case, name, proxies[name], bases) for name in TITLES if name in proxies])
    return "\n".join(lines)


def header(case, bases):
    ratios = [f"x {TITLES[base]}" for base in bases]
    if case == "sse":
        return ["proxy", "CPU us a stream", "CPU us a chunk", "least to most", *ratios, "first event ms (p50, p99)",
                "event delay us (p50, p99)", "core busy"]
    return ["proxy", "CPU us a request", "least to most", *ratios, "requests/s", "latency ms (p50, p99)", "core busy"]


def row(case, name, figures, bases):
    def middle(key, scale=1.0, digits=1):
        return f"{figures[key]['median'] * scale:.{digits}f}"

    cost = figures["cpu_us_per_chunk" if case == "sse" else "cpu_us_per_request"]
    ratios = [f"{figures['ratio_to'][base]['median']:.3g}" if base in figures["ratio_to"] else "-" for base in bases]
    range_ = f"{cost['min']:.1f} to {cost['max']:.1f}"
    busy = f"{figures['core_share']['median']:.0%}"
    if case == "sse":
        return [TITLES[name], middle("cpu_us_per_request", digits=0), middle("cpu_us_per_chunk"), range_, *ratios,
                f"{middle('first_event_us_p50', 1e-3, 2)}, {middle('first_event_us_p99', 1e-3, 2)}",
                f"{middle('event_delay_us_p50', digits=0)}, {middle('event_delay_us_p99', digits=0)}", busy]
    return [TITLES[name], middle("cpu_us_per_request"), range_, *ratios, middle("requests_per_s", digits=0),
            f"{middle('p50_us', 1e-3, 2)}, {middle('p99_us', 1e-3, 2)}", busy]


def aligned(rows):
    """Rows of text as a Markdown table whose columns line up."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths)) + " |" for cells in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def width_of(figure):
    return (figure["max"] - figure["min"]) / figure["median"]


def verdict(summary):
    """What Tradewind adds to a bare Pingora proxy, case by case, against the limit."""
    lines = []
    for case, proxies in summary.items():
        ratio = proxies.get("tradewind", {}).get("ratio_to", {}).get("bare")
        if ratio:
            met = "met" if ratio["median"] - 1 < ADDED_MAX else "MISSED"
            if ratio["min"] - 1 < ADDED_MAX <= ratio["max"] - 1:
                met += " by the median, but not in every round"
            median, least, most = (f"{ratio[key] - 1:+.1%}" for key in ("median", "min", "max"))
            lines.append(f"{CASES[case]}: Tradewind adds {median} to bare Pingora ({least} to {most} over the rounds); "
                         f"it must stay under {ADDED_MAX:.0%}: {met}.")
    return "\n".join(lines)


def warnings(summary, samples):
    """What makes the figures doubtful."""
    lines = []
    for sample in samples:
        if "rejected" in sample:
            lines.append(f"FAILED: {TITLES[sample['proxy']]}, {CASES[sample['case']]}, round {sample['round']}: "
                         f"{sample['rejected']}. This sample is left out.")
    others = [figures["others_share"]["median"] for proxies in summary.values() for figures in proxies.values()]
    if others and max(others) > OTHERS_MAX:
        lines.append(f"NOISY: other programs used up to {max(others):.0%} of the machine. Repeat it on a quiet one.")
    lines += [f"UNSTABLE: {TITLES[name]}, {CASES[case]}: the samples lie {width:.0%} of their median apart."
              for case, proxies in summary.items() for name, figures in proxies.items()
              if (width := width_of(figures["cpu_us_per_request"])) > SPREAD_MAX]
    for case in ("get", "post", "post64k", "chat"):
        slack = [TITLES[name] for name, figures in summary.get(case, {}).items() if figures["core_share"]["median"] < 0.9]
        if slack:
            lines.append(f"NOT FULL: {CASES[case]}: {', '.join(slack)} used less than 90% of a core: the load or another "
                         "program was the limit, and the latency and requests/s say little.")
    for name, figures in summary.get("sse", {}).items():
        if (kept := figures["chunks_kept_share"]["median"]) < 1 - MERGED_MAX:
            lines.append(f"MERGED: {TITLES[name]} passed on {kept:.0%} of the chunks as chunks of their own, the rest "
                         "together with another, which costs less CPU.")
    return "\n".join(lines)
