#!/usr/bin/env python3
"""How full `eval` keeps an endpoint: a server on this machine that answers after 50 ms, and the time of an eval beside the ideal.

    python3 scripts/studies/endpoint-speed.py [PROGRAM] [--prompts 6400] [--concurrency 64] [--latency 0.05] [--out]

PROGRAM: target/release/grpo-tui. Needs nothing but Python. The ideal is prompts / concurrency, rounded up, times the latency.
"""

import argparse
import asyncio
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

ANSWER = json.dumps({"vendor": "Nordlys AS", "date": "2024-03-01", "currency": "EUR", "amount": 12.5})


class Server:
    def __init__(self, latency):
        self.latency, self.busy, self.first, self.last, self.seconds, self.answers, self.connections = latency, 0, None, 0.0, 0.0, 0, 0
        choice = {"message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 30}}).encode()
        self.reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        self.started = threading.Event()

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                start = time.monotonic()
                self.first = self.first or start
                await asyncio.sleep(self.latency)
                writer.write(self.reply)
                self.last = time.monotonic()
                self.seconds += self.last - start
                self.answers += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default="target/release/grpo-tui")
    parser.add_argument("--prompts", type=int, default=6400)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--out", action="store_true", help="keep the answers, as an eval that can go on does")
    asked = parser.parse_args()
    program = str(pathlib.Path(asked.program).resolve())
    server = Server(asked.latency)
    threading.Thread(target=lambda: asyncio.run(server.run()), daemon=True).start()
    server.started.wait()
    with tempfile.TemporaryDirectory() as folder:
        rows = [json.dumps({"id": f"p{at}", "messages": [{"role": "user", "content": f"invoice {at}"}]}) for at in range(asked.prompts)]
        pathlib.Path(folder, "rows.jsonl").write_text("\n".join(rows) + "\n")
        endpoint = f'[api]\nbase_url = "http://127.0.0.1:{server.port}/v1"\nmodel = "m"\nconcurrency = {asked.concurrency}\n'
        pathlib.Path(folder, "endpoints.toml").write_text(endpoint)
        command = [program, "eval", "invoice", "--on", "rows.jsonl", "--model", "api=endpoint:api", "--endpoints", "endpoints.toml", "--json"]
        start = time.monotonic()
        done = subprocess.run(command + (["--out", "out"] if asked.out else []), cwd=folder, capture_output=True, text=True)
        whole = time.monotonic() - start
    if done.returncode != 0:
        sys.exit(done.stderr)
    target = json.loads(done.stdout)["targets"]["api"]
    ideal = math.ceil(asked.prompts / asked.concurrency) * asked.latency
    busy = server.last - server.first
    print(f"{server.answers} answers on {server.connections} connections, {target['n']} scored, {target.get('endpoint_errors', 0)} endpoint errors")
    print(f"first request to last answer {busy:.3f} s, ideal {ideal:.3f} s: {100 * (busy / ideal - 1):+.1f}%; whole command {whole:.3f} s")
    print(f"requests under way, on average: {server.seconds / busy:.1f}; the server's own latency {1000 * server.seconds / server.answers:.1f} ms")
    print(f"latency seen by the eval: median {1000 * target['endpoint']['latency_median_seconds']:.1f} ms, p95 {1000 * target['endpoint']['latency_p95_seconds']:.1f} ms")


if __name__ == "__main__":
    main()
