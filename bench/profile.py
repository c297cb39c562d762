#!/usr/bin/env python3
"""Where the CPU goes for one decision: instructions of gateway and decider, counted by valgrind's callgrind.

Counts do not depend on what else the machine does, so two builds can be compared to the per cent. They leave the kernel
out: a system call is one instruction here. Needs cargo, valgrind and nats-server (Debian: apt-get install valgrind
nats-server) and a built bench (cargo build --release -p importguard-bench).

    bench/profile.py                        2 friends, 2,000 decisions, traces sampled at 10 %
    bench/profile.py --friends 1000 --requests 200
    bench/profile.py --traces off --keep /tmp/profile    # and leaves callgrind.out.* for kcachegrind
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PODS = ["importguard-gateway", "importguard-decider"]
# Valgrind is some fifty times slower: no timeout may fire because of that.
PATIENT = {
    "IMPORTGUARD_DECIDER_TIMEOUT": "60s",
    "IMPORTGUARD_ACK_TIMEOUT": "60s",
    "IMPORTGUARD_REQUEST_BUDGET": "300s",
    "IMPORTGUARD_BODY_READ_TIMEOUT": "60s",
}


def main():
    options = parse()
    target = ROOT / "target" / "profiling"
    bins = options.bin_dir or (None if options.floor else build(target))
    bench = ROOT / "target" / "release" / "importguard-bench"
    if not bench.exists():
        sys.exit("build the bench first: cargo build --release -p importguard-bench")
    with contextlib.ExitStack() as stack:
        keep = options.keep or stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "target"))
        out = pathlib.Path(keep).resolve()
        out.mkdir(parents=True, exist_ok=True)
        start = lambda *args, **kwargs: stack.enter_context(running(out, *args, **kwargs))
        processes, http = line_up(start, bins, bench, out, options)
        ask = lambda count: subprocess.run(
            [bench, "load", f"127.0.0.1:{http}", f"--friends={options.friends}",
             f"--connections={options.connections}", f"--requests={count}"], check=True)
        ask(options.warm_up)
        for pid in processes.values():
            control("-i", "on", str(pid))
        ask(options.requests)
        for pid in processes.values():
            control("-i", "off", str(pid))
            control("-d", str(pid))
        for name, pid in processes.items():
            dumps = sorted(out.glob(f"callgrind.out.{name}*"))
            profile = Profile()
            for dump in dumps:
                profile.read(dump)
            profile.tell(name, options)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--friends", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--warm-up", type=int, default=300)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--traces", choices=["off", "10", "on"], default="10")
    parser.add_argument("--floor", action="store_true", help="count the floor's instead")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="the pods' binaries, with debug information")
    parser.add_argument("--keep", type=pathlib.Path, help="leave logs and callgrind's files there")
    parser.add_argument("--top", type=int, default=45, help="how many functions are listed")
    return parser.parse_args()


def build(target):
    """The pods as they ship, but for the names of lines."""
    variables = {"CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only", "CARGO_TARGET_DIR": str(target),
                 "RUSTFLAGS": "-C force-frame-pointers=yes"}
    pods = [argument for pod in PODS for argument in ("-p", pod)]
    subprocess.run(["cargo", "build", "--release", "--locked", "--bins", *pods],
                   cwd=ROOT, env={**os.environ, **variables}, check=True)
    return target / "release"


def line_up(start, bins, bench, out, options):
    """Starts everything; returns the process ids to look at, and the port for callbacks."""
    nats, grpc, http, sink, *admin = (free_port() for _ in range(6))
    start("nats", ["nats-server", "-a", "127.0.0.1", "-p", str(nats), "-js", "-sd", str(out / "store")])
    export = {}
    if options.traces != "off":
        start("sink", [bench, "part", "sink", "--listen", f"127.0.0.1:{sink}"])
        export["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{sink}"
    if options.traces == "10":
        export |= {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    settings = {
        "IMPORTGUARD_DECIDER_LISTEN": f"127.0.0.1:{grpc}",
        "IMPORTGUARD_DECIDER_URL": f"http://127.0.0.1:{grpc}",
        "IMPORTGUARD_POLICY": str(ROOT / "policy" / "policy.yaml"),
        "IMPORTGUARD_HTTP_LISTEN": f"127.0.0.1:{http}",
        "IMPORTGUARD_SPOOL": str(out / "spool"),
        "NATS_URL": f"nats://127.0.0.1:{nats}",
        **PATIENT, **export,
    }
    processes = {}
    for name, port in zip(("decider", "gateway"), admin):
        file = out / f"callgrind.out.{name}"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={file}"]
        if options.floor:
            process = start(name, valgrind + [bench, "part", *floor(name, nats, grpc, http)])
            accepts(grpc if name == "decider" else http)
        else:
            own = {**settings, "IMPORTGUARD_ADMIN_LISTEN": f"127.0.0.1:{port}"}
            process = start(name, valgrind + [bins / f"importguard-{name}"], own)
            ready(port, process, "streaming" if name == "gateway" else None)
        processes[name] = process.pid
    return processes, http


def floor(name, nats, grpc, http):
    if name == "decider":
        return ["floor-decider", "--listen", f"127.0.0.1:{grpc}"]
    return ["floor-gateway", "--listen", f"127.0.0.1:{http}", "--decider", f"http://127.0.0.1:{grpc}",
            "--nats", f"nats://127.0.0.1:{nats}", "--event-extra", "1000"]


@contextlib.contextmanager
def running(out, name, command, settings=None):
    path = os.environ["PATH"] + ":/usr/sbin"
    with open(out / f"{name}.log", "wb") as log:
        process = subprocess.Popen([str(part) for part in command], cwd=out, stdout=log, stderr=log,
                                   env={**os.environ, "PATH": path, **(settings or {})})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accepts(port):
    deadline = time.time() + 120
    while time.time() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.2)
    sys.exit("the floor did not become ready")


def ready(port, process, recorder):
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
                said = json.load(answer)
            if recorder is None or said["recorder"]["state"] == recorder:
                return
        time.sleep(0.2)
    sys.exit("a pod did not become ready")


def control(*arguments):
    subprocess.run(["callgrind_control", *arguments], check=True, stdout=subprocess.DEVNULL)


class Profile:
    """Callgrind's file format (valgrind manual, "Callgrind Format Specification"): positions and costs by function and file."""

    def __init__(self):
        self.names = {"f": {}, "o": {}, "fn": {}}
        self.by_function = collections.Counter()
        self.by_crate = collections.Counter()
        self.inclusive = collections.Counter()
        self.calls = collections.Counter()

    def read(self, file):
        function = source = None
        call = None
        names = {"f": {}, "fn": {}}
        with open(file, errors="replace") as lines:
            for line in lines:
                kind, _, rest = line.rstrip("\n").partition("=")
                if kind in ("fl", "fi", "fe"):
                    source = resolve(names["f"], rest)
                elif kind == "fn":
                    function = resolve(names["fn"], rest)
                elif kind == "cfn":
                    call = [resolve(names["fn"], rest), 0]
                elif kind in ("cfl", "cfi"):
                    resolve(names["f"], rest)
                elif kind == "calls":
                    call[1] = int(rest.split()[0])
                    in_call = call
                    cost = int(next(lines).split()[-1])
                    if in_call[0] != function:
                        self.inclusive[function] += cost
                    self.calls[in_call[0]] += in_call[1]
                elif line[:1] in "+-*0123456789" and line[:1] != "":
                    cost = int(line.split()[-1])
                    self.by_function[function] += cost
                    self.inclusive[function] += cost
                    self.by_crate[crate(source)] += cost

    def tell(self, name, options):
        each = 1 / options.requests
        total = sum(self.by_function.values())
        print(f"\n## {name}: {total * each:,.0f} instructions a decision "
              f"({options.friends} friends, traces {options.traces}, {options.requests} decisions)\n")
        print("| crate | instructions | % |\n|:--|--:|--:|")
        for crate_name, cost in self.by_crate.most_common(25):
            print(f"| {crate_name} | {cost * each:,.0f} | {cost * 100 / total:.1f} |")
        for title, costs in [("self", self.by_function), ("with what they call", self.inclusive)]:
            print(f"\n| function, {title} | instructions | % | calls |\n|:--|--:|--:|--:|")
            for function, cost in costs.most_common(options.top):
                short = shorten(function)
                print(f"| `{short}` | {cost * each:,.0f} | {cost * 100 / total:.1f} | {self.calls[function] * each:.1f} |")


def resolve(names, text):
    match = re.match(r"\((\d+)\)(?: (.*))?$", text)
    if not match:
        return text
    number, name = match.groups()
    if name is not None:
        names[number] = name
    return names.get(number, "?")


def crate(source):
    if source is None or source == "???":
        return "C library and others without lines"
    match = re.search(r"/registry/src/[^/]+/(.+?)-\d+\.\d+[^/]*/", source)
    if match:
        return match[1]
    match = re.search(r"/library/(\w+)/", source)
    if match:
        return f"Rust's {match[1]}"
    match = re.search(r"(?:^|/)(gateway|decider|telemetry|proto|files)/src/", source)
    if match:
        return f"importguard's {match[1]}"
    return pathlib.Path(source).name


def shorten(function):
    function = re.sub(r"\[[0-9a-f]{16}\]", "", function)
    function = re.sub(r"::h[0-9a-f]{16}", "", function)
    return function if len(function) < 170 else function[:167] + "…"


if __name__ == "__main__":
    main()
