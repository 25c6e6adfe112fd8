"""What must be shown: each bar, the figure measured for it in this run, and whether it passes."""
from dataclasses import dataclass

from benchmarks import peers

MB = 1e6


@dataclass(frozen=True)
class Bar:
    """One promise. `measure(results)` returns the measured number, or None if this run does not hold it."""

    name: str
    bound: str                       # "at least" or "at most"
    value: float
    unit: str
    measure: object

    def judge(self, results):
        """(measured number or None, verdict)."""
        measured = self.measure(results)
        if measured is None:
            return None, "NOT MEASURED"
        passes = measured >= self.value if self.bound == "at least" else measured <= self.value
        return measured, "PASS" if passes else "FALLS SHORT"


def times_as_fast(case, figure, *candidates):
    """How many times the seconds of ours the fastest of some peers takes, medians of one run.

    None unless all of them were measured: the fastest may be the one that is missing.
    """
    def ratio(results):
        ours, *theirs = (results.median(case, figure, key) for key in ("ours", *candidates))
        return None if None in (ours, *theirs) else min(theirs) / ours
    return ratio


def _native_ratio(results):
    ratio = times_as_fast("S1", "gradient", "native")(results)
    return None if ratio is None else 1 / ratio


def _noise_seconds(results):
    median = results.median("S1", "noise", "ours")
    return None if median is None else 10 * median                           # 10,000 draws, from 1000


def _growth_in_n(results):
    long, short = (results.growth("n", n, "ours") for n in (10_000, 20))
    return None if long is None or short is None else long / short


def _memory(case):
    def megabytes(results):
        used = [record["bytes"] / MB for record in results.of("memory") if record["peer"] == "ours"
                and case in (None, record["case"])]
        return max(used, default=None)
    return megabytes


def _allocated(results):
    return max((record["bytes"] / 1e3 for record in results.of("allocation")), default=None)


def _one_thread(results):
    return max((record["threads"] for record in results.of("timing") + results.of("growth")), default=None)


BARS = [
    Bar("S1 step, against PyTorch eager in token form", "at least", 28, "times as fast",
        times_as_fast("S1", "step", "torch")),
    Bar("S1 step, against jax.jit in token form", "at least", 20, "times as fast",
        times_as_fast("S1", "step", "jax")),
    Bar("S1 step, against the best JAX in Gram form", "at least", 7, "times as fast",
        times_as_fast("S1", "step", "jax-gram", "jax-scan-gram")),
    Bar("S1 step, against torch.compile in Gram form", "at least", 7, "times as fast",
        times_as_fast("S1", "step", "torch-compile-gram")),
    Bar("S1 gradient, against C", "at most", 6, "times its seconds", _native_ratio),
    Bar("L=8, d=20, n=60 step, against PyTorch eager in token form", "at least", 10, "times as fast",
        times_as_fast("L8d20n60", "step", "torch")),
    Bar("L=8, d=20, n=60 step, against the best in Gram form", "at least", 2.4, "times as fast",
        times_as_fast("L8d20n60", "step", *peers.GRAM)),
    Bar("softmax step, against PyTorch eager", "at least", 2.5, "times as fast",
        times_as_fast("softmax", "step", "torch")),
    Bar("softmax step, against torch.compile", "at least", 2.3, "times as fast",
        times_as_fast("softmax", "step", "torch-compile")),
    Bar("S1 Hessian, against torch.autograd.functional.hessian", "at least", 5, "times as fast",
        times_as_fast("S1", "hessian", "torch")),
    Bar("10,000 noise draws at S1", "at most", 20, "s", _noise_seconds),
    Bar("step at n = 10,000, against n = 20", "at most", 1.3, "times its seconds", _growth_in_n),
    Bar("peak memory of S1 steps, libraries included", "at most", 300, "MB", _memory("S1")),
    Bar("peak memory of any case's steps, libraries included", "at most", 400, "MB", _memory(None)),
    Bar("memory one step allocates after the first, any case", "at most", 100, "kB", _allocated),
    Bar("CPU seconds a wall second: every peer kept to one thread", "at most", 1.1, "", _one_thread),
]

# What `--check` measures: {figure: cases}
NEEDED = {"step": ("S1", "L8d20n60", "softmax"), "gradient": ("S1",), "hessian": ("S1",), "noise": ("S1",)}


def lines(results):
    """(text lines, one for each bar; whether all pass)."""
    judged = [(bar, *bar.judge(results)) for bar in BARS]
    text = [f"{verdict:12}  {'-' if measured is None else format(measured, '.3g'):>7} {bar.unit}"
            f" ({bar.bound} {bar.value:g}): {bar.name}" for bar, measured, verdict in judged]
    return text, all(verdict == "PASS" for *_, verdict in judged)
