"""Serve a GGUF file with llama.cpp's own HTTP server, from the wheel `xllamacpp`.

Run it in the environment described in `benchmarks/peers/README.md`:

    python benchmarks/peers/llamacpp_server.py MODEL.gguf --port 8802

Every default of llama.cpp stays, except that `--slots` sequences are decoded together, each with the
model's whole context (`kv_unified` shares one cache between the slots, so that idle slots cost nothing).
The process runs until it gets SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

import xllamacpp  # type: ignore[import-not-found]  # lives in an environment of its own


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("gguf", type=Path, help="the model")
    parser.add_argument("--port", type=int, default=8802, help="loopback port to listen on")
    parser.add_argument("--slots", type=int, default=32, help="sequences decoded together")
    parser.add_argument("--threads", type=int, default=None, help="default: one per core")
    parser.add_argument(
        "--kv-tokens", type=int, default=65536, help="token positions in the cache that the slots share"
    )
    return parser.parse_args()


def server_params(args: argparse.Namespace) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(args.gguf)
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.n_parallel = args.slots
    params.n_ctx = args.kv_tokens
    params.kv_unified = True
    params.verbosity = 1
    if args.threads is not None:
        params.cpuparams.n_threads = args.threads
        params.cpuparams_batch.n_threads = args.threads
    return params


def main() -> None:
    args = parse_args()
    if not args.gguf.is_file():
        sys.exit(f"{args.gguf}: no such file")
    # Before the server starts its threads, so that they inherit the mask and sigwait below gets the signal.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = xllamacpp.Server(server_params(args))
    print(f"llama.cpp {xllamacpp.BUILD_INFO}: {xllamacpp.get_system_info()}", flush=True)
    print(f"listening on {server.listening_address}", flush=True)
    signal.sigwait(signals)


if __name__ == "__main__":
    main()
