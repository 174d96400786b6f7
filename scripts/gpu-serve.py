"""Clients of a server at the Qwen3-8B shape, random weights: `serve` with an adapter on, and a peer where one is given.

    python3 scripts/gpu-serve.py BINARY FOLDER OUT [PEER...]    FOLDER: the random checkpoint, made where it is missing (17 GB; /dev/shm); OUT: the figures, JSON;
                                                               PEER: a command that serves the folder's copy MODEL on 127.0.0.1:8001 (vLLM: scripts/gpu-serve.md)

64 clients, each with a connection of its own, ask one completion after another: prompts of 100 random tokens, 64 new ones, temperature 1, no stop. A warm-up is not counted.
Our own decode rate is that of `bench gpu` in the same run.
"""
import glob, http.client, json, os, pathlib, random, statistics, subprocess, sys, tempfile, threading, time
import random_qwen3

CLIENTS, PROMPT, NEW, EACH = 64, 100, 64, 10


def whole_vocabulary(folder, copy):
    """A copy of which every id of the model is a token, so that any server can write what is sampled."""
    os.makedirs(copy, exist_ok=True)
    for file in glob.glob(f"{folder}/*"):
        if not os.path.exists(f"{copy}/{os.path.basename(file)}"):
            os.symlink(file, f"{copy}/{os.path.basename(file)}")
    size = json.load(open(f"{folder}/config.json"))["vocab_size"]
    tokenizer = json.load(open(f"{folder}/tokenizer.json"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = set(vocabulary.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary |= {f"x{index}": index for index in range(size) if index not in taken}
    os.remove(f"{copy}/tokenizer.json")
    json.dump(tokenizer, open(f"{copy}/tokenizer.json", "w"))


def wait(port, process, seconds=400):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            sys.exit(f"FAIL serve: the server on port {port} ended with {process.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"FAIL serve: nothing answers on port {port}")


def ask(port, model, each):
    """tok/s of all clients together, and the latencies of their requests."""
    latencies, failures, lock = [], [], threading.Lock()

    def client(number):
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        for _ in range(each):
            body = {"model": model, "prompt": [draw.randrange(1000, 150000) for _ in range(PROMPT)], "max_tokens": NEW, "temperature": 1.0, "ignore_eos": True, "seed": draw.randrange(1 << 30)}
            start = time.time()
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            with lock:
                if answer.status == 200 and json.loads(text)["usage"]["completion_tokens"] == NEW:
                    latencies.append(time.time() - start)
                else:
                    failures.append(text[:300])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    start = time.time()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    seconds = time.time() - start
    if failures:
        sys.exit(f"FAIL serve: {len(failures)} requests failed, the first: {failures[0]}")
    return {"tokens_per_second": CLIENTS * each * NEW / seconds, "seconds": seconds, "latency_median": statistics.median(latencies), "latency_p95": sorted(latencies)[int(0.95 * len(latencies))]}


def measure(command, port, model, log):
    with open(log, "w") as out:
        start = time.time()
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            wait(port, process)
            ready = time.time() - start
            ask(port, model, 2)
            return {"start_seconds": ready, "rounds": [ask(port, model, EACH) for _ in range(3)]}
        finally:
            process.terminate()
            process.wait()


binary, folder, out = sys.argv[1:4]
random_qwen3.write(folder)
work = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(out).absolute().parent))
model = "/dev/shm/grpo-tui-serve-8b"
whole_vocabulary(folder, model)
figures = {}
run = subprocess.run([binary, "train", "invoice", "--model", model, "--gpu", "0", "--runs", str(work / "runs"), "--name", "served", "--json", "--set", "max_steps=1", "--set", "max_completion_tokens=64",
                      "--set", "lora_rank=16", "--set", "eval_every=0", "--set", "max_rows=8", "--ignore-preflight-errors"], capture_output=True, text=True)
if run.returncode:
    sys.exit(f"FAIL serve: no run to serve: {run.stderr[-2000:]}")
figures["ours"] = measure([binary, "serve", "served@last", "--runs", str(work / "runs"), "--listen", "127.0.0.1:8002", "--gpu", "0"], 8002, "served@last", f"{out}.ours.log")
figures["ours_base"] = measure([binary, "serve", model, "--listen", "127.0.0.1:8002", "--gpu", "0"], 8002, model, f"{out}.base.log")
if len(sys.argv) > 4:
    command = [part.replace("MODEL", model) for part in sys.argv[4:]]
    figures["peer"] = measure(command, 8001, model, f"{out}.peer.log")
json.dump(figures, open(out, "w"), indent=1)
for name, found in figures.items():
    rates = [round(part["tokens_per_second"]) for part in found["rounds"]]
    print(f"{name}: {rates} tok/s, latency median {found['rounds'][-1]['latency_median']:.3f} s, start {found['start_seconds']:.1f} s")
