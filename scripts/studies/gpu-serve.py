"""Clients of a server at the Qwen3-8B shape, random weights: `serve` with an adapter on, with two adapters loaded, without, and a peer where one is given.

    python3 scripts/studies/gpu-serve.py BINARY FOLDER OUT [PEER...]    FOLDER: the random checkpoint, made where it is missing (17 GB; /dev/shm); OUT: the figures, JSON;
                                                               PEER: a command that serves MODEL on 127.0.0.1:8001, such as vLLM's

The load is that of `grpo-tui-lab bench serve`, beside BINARY: 64 clients, each with one request after the other, prompts of 100 random tokens, 64 new ones, no stop. Three rounds, whole answers.
Of the base also with a `response_format` for none, all and half of the clients, whose answers do not end within 64 tokens; by clients in Python.
"""
import concurrent.futures, glob, http.client, json, os, pathlib, random, subprocess, sys, tempfile, time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import random_qwen3

ENTRY = {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}, "required": ["id", "name"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "entries", "strict": True, "schema": {"type": "array", "items": ENTRY, "minItems": 60}}}


def whole_vocabulary(folder, copy):
    """A copy of which every id of the model is a token, so that any server can write what is sampled."""
    os.makedirs(copy, exist_ok=True)
    for file in glob.glob(f"{folder}/*"):
        if not os.path.lexists(f"{copy}/{os.path.basename(file)}"):
            os.symlink(file, f"{copy}/{os.path.basename(file)}")
    size = json.load(open(f"{folder}/config.json"))["vocab_size"]
    tokenizer = json.load(open(f"{folder}/tokenizer.json"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = set(vocabulary.values()) | {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary |= {f"x{index}": index for index in range(size) if index not in taken}
    os.remove(f"{copy}/tokenizer.json")
    json.dump(tokenizer, open(f"{copy}/tokenizer.json", "w"))


def wait(port, process, seconds=300):
    end = time.time() + seconds
    while time.time() < end and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"FAIL serve: nothing answers on port {port} (exit code {process.poll()})")


def client(port, model, more):
    connection, tokens = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
    for _ in range(10):
        body = {"model": model, "prompt": [random.randrange(150000) for _ in range(100)], "max_tokens": 64, **more}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        tokens += json.loads(connection.getresponse().read())["usage"]["completion_tokens"]
    return tokens


def formats(port, model):
    found = {}
    for name, every in [("warm", 2), ("none", 0), ("all", 1), ("half", 2)] + 2 * [("none", 0), ("all", 1)]:
        asked = [{"response_format": FORMAT} if every and at % every == 0 else {"ignore_eos": True} for at in range(64)]
        start = time.time()
        with concurrent.futures.ThreadPoolExecutor(64) as clients:
            tokens = sum(clients.map(lambda more: client(port, model, more), asked))
        found.setdefault(name, []).append(tokens / (time.time() - start))
    print("response_format, tok/s:", {name: [round(rate) for rate in rates] for name, rates in found.items()}, flush=True)
    return found


def measure(name, command, port, model, also=None):
    with open(f"{out}.{name}.log", "w") as log:
        start = time.time()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait(port, process)
            ready = time.time() - start
            load = [str(pathlib.Path(binary).with_name("grpo-tui-lab")), "bench", "serve", "--url", f"http://127.0.0.1:{port}/v1", "--model", model, "--vocabulary", "150000", "--requests", "640", "--no-stream", "--json"]
            rounds = [json.loads(subprocess.run(load, capture_output=True, text=True, check=True).stdout)["results"] for _ in range(3)]
            if also:
                figures["formats"] = also(port, model)
        finally:
            process.terminate()
            process.wait()
    figures[name] = {"start_seconds": ready, "rounds": rounds}
    shown = [", ".join(f"{found['name']} {found['value']:.4g} {found['unit']}" for found in results) for results in rounds]
    print(f"{name} (start {ready:.1f} s):", *shown, sep="\n  ", flush=True)


binary, folder, out = sys.argv[1:4]
figures = {}
random_qwen3.write(folder)
work = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(out).absolute().parent))
model = "/dev/shm/grpo-tui-serve-8b"
whole_vocabulary(folder, model)
for seed in (0, 1):
    settings = dict(max_steps=1, max_completion_tokens=64, lora_rank=16, eval_every=0, max_rows=8, seed=seed)
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    run = subprocess.run([binary, "train", "invoice", "--model", model, "--gpu", "0", "--runs", str(work / "runs"), "--name", f"served{seed}", "--json", "--ignore-preflight-errors", *arguments], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"FAIL serve: no run to serve: {run.stderr[-2000:]}")
serve = lambda *more: [binary, "serve", *more, "--runs", str(work / "runs"), "--listen", "127.0.0.1:8002", "--gpu", "0"]
measure("adapter", serve("served0@last"), 8002, "served0@last")
measure("two_adapters", serve(model, "--adapter", "a=served0@last", "--adapter", "b=served1@last"), 8002, "a")
measure("base", serve(model), 8002, model, formats)
if len(sys.argv) > 4:
    measure("peer", [part.replace("MODEL", model) for part in sys.argv[4:]], 8001, model)
json.dump(figures, open(out, "w"), indent=1)
