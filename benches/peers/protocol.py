"""What every peer shares: its arguments, its threads, and the conversation with the runner (benches/peers.rs).

    python3 SCRIPT WORKLOAD THREADS

A script calls `begin` before it imports anything heavy, sets its step up, and ends in `serve`.
"""
import importlib.util
import json
import os
import sys
import time

SHORTEST = 2e-4  # seconds of a sample: short steps are timed together, so that the clock counts for nothing


def begin(*packages):
    """The name of the workload and the number of threads, which hold for the libraries that are imported next.

    Says so and ends if a package is missing. One thread is one core: some libraries start helpers whatever they are told.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            say({"missing": package})
            sys.exit(0)
    workload, threads = sys.argv[1], int(sys.argv[2])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return workload, threads


def serve(peer, step, warmup=3):
    """Warms `step` up, says that `peer` is ready, and runs it for as long as it is told, until the input ends."""
    fastest = float("inf")
    for _ in range(warmup):
        fastest = min(fastest, timed(step, 1))
    if fastest < SHORTEST:  # a short step is not warm after a few times
        fastest = min(timed(step, 1) for _ in range(200))
    repeat = max(1, round(SHORTEST / fastest))
    say({"ready": True, "peer": peer})
    for line in sys.stdin:
        word, seconds = line.split()
        if word != "run":
            sys.exit(f"{word}? It is `run SECONDS`")
        end = time.perf_counter() + float(seconds)
        samples = []
        while len(samples) < 3 or time.perf_counter() < end:
            samples.append(timed(step, repeat) * 1e3)
        say({"ms": samples})


def timed(step, repeat):
    """Seconds of a step, over `repeat` of them."""
    start = time.perf_counter()
    for _ in range(repeat):
        step()
    return (time.perf_counter() - start) / repeat


def say(message):
    print(json.dumps(message), flush=True)
