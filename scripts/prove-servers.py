"""False alarms of `prove`: five tasks, each served correctly in five ways. Prints a table; exit code 1 where one is called different.

    python3 scripts/prove-servers.py PROGRAM [LLAMA_CPP_PYTHON]    a Python with xllamacpp; without one llama.cpp's rows are not run

Each task has a short run of an adapter. TASKS and SERVERS of the environment name some alone. 25 comparisons of 24 prompts take some 8 minutes on two cores.
"""
import atexit, json, os, pathlib, shutil, subprocess, sys, tempfile, time

PROGRAM, LLAMA_CPP = [*map(os.path.abspath, sys.argv[1:]), None][:2]  # they run in another folder
FOLDER = pathlib.Path(os.environ.get("WORK") or tempfile.mkdtemp())
if not os.environ.get("WORK"):
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SAMPLES = pathlib.Path(__file__).resolve().parent.parent / "sample-data"
SERVER = pathlib.Path(__file__).resolve().with_name("llama-cpp-server.py")


def program(*arguments):
    ended = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=FOLDER)
    if ended.returncode:
        sys.exit(f"FAIL {' '.join(map(str, arguments))}: {ended.stderr[-2000:]}")
    return ended.stdout


def task(name, embedded, changes, row):
    """A small copy of an embedded task with some lines of its task.toml changed, and each row by `row`."""
    folder = FOLDER / name
    folder.mkdir()
    sample = SAMPLES / embedded
    text = (sample / "task.toml").read_text().replace(f'name = "{embedded}"', f'name = "{name}"')
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    (folder / "task.toml").write_text(text)
    for file in sample.iterdir():
        if file.name in ("train.jsonl", "eval.jsonl", "eval-large.jsonl", "test.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()[:64]]
            (folder / file.name).write_text("".join(json.dumps(row(found)) + "\n" for found in rows))
        elif file.is_file() and file.name != "task.toml":
            (folder / file.name).write_bytes(file.read_bytes())


SCHEMA = json.loads((SAMPLES / "invoice/schema.json").read_text())


def with_schema(row):
    """Every second row judges by a schema of its own, in which the currency is not needed."""
    if int("".join(filter(str.isdigit, row["id"])) or 0) % 2:
        row["schema"] = dict(SCHEMA, required=[name for name in SCHEMA.get("required", []) if name != "currency"])
    return row


def without_expected(row):
    return {key: value for key, value in row.items() if key != "expected"}


REGEX = [("[score]\nkind = \"json_schema\"", "[score]\nkind = \"regex\"\npattern = '\"amount\": *[0-9.]*[13579]\\b'"), ('schema = "schema.json"\n', ""), ("graded = false\n", ""), ("assert_formats = false\n", ""),
         ('\n[[reward]]\npart = "fields"\nweight = 1.0\n', "\n")]
TASKS = {
    "invoice": ("invoice", "tiny", [], lambda row: row),
    "tool-calls": ("tool-calls", "tiny-tools", [], lambda row: row),
    "sql": ("sql", "tiny-sql", [], lambda row: row),
    "row-schemas": ("invoice", "tiny", [], with_schema),
    "pattern": ("invoice", "tiny", REGEX, without_expected),
}


def servers(run, base, out):
    """Names, the commands that serve, the model's name there, and whether requests have to switch thinking off."""
    merged, gguf = out / "merged", out / "f16.gguf"
    serve = [PROGRAM, "serve"]
    listen = ["--listen", "127.0.0.1:0", "--cpu", "--runs", str(FOLDER / "runs")]
    yield "serve RUN", [*serve, run, *listen], run, False
    yield "serve BASE --adapter", [*serve, base, "--adapter", f"trained={run}", *listen], "trained", False
    program("model", "export", "--model", run, "--merged", "--out", merged)
    yield "serve MERGED --queue 64 --threads 1", [*serve, str(merged), "--queue", "64", "--threads", "1", *listen], str(merged), True
    program("model", "export", "--model", run, "--gguf", "f16", "--out", gguf)
    yield "serve F16.gguf", [*serve, str(gguf), *listen], str(gguf), True
    if LLAMA_CPP:
        yield "llama.cpp, f16", [LLAMA_CPP, SERVER, gguf], gguf.name, False


def proven(command, model, is_switched, run):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=FOLDER)
    try:
        line = process.stdout.readline()
        url = next((word for word in line.split() if word.startswith("http")), None)
        if url is None:
            return {"verdict": f"no server: {line}", "differs": True, "findings": []}
        url = url.rstrip("/").removesuffix("/v1") + "/v1"
        text = f"[served]\nbase_url = {json.dumps(url)}\nmodel = {json.dumps(model)}\n"
        if is_switched:
            text += "extra_body = { chat_template_kwargs = { enable_thinking = false } }\n"
        (FOLDER / "endpoints.toml").write_text(text)
        limits = ["--limit", "24", "--at-once", "32" if command[0] == PROGRAM else "8", "--cpu", "--json"]
        ended = subprocess.run([PROGRAM, "prove", "endpoint:served", "--endpoints", "endpoints.toml", "--run", run, "--runs", "runs", *limits], capture_output=True, text=True, cwd=FOLDER)
        try:
            return json.loads(ended.stdout)
        except ValueError:
            return {"verdict": ended.stderr.strip(), "differs": True, "findings": []}
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


chosen = lambda name, names: names if not os.environ.get(name) else [found for found in names if found in os.environ[name].split(",")]
alarms = count = 0
for name in chosen("TASKS", list(TASKS)):
    embedded, base, changes, row = TASKS[name]
    task(name, embedded, changes, row)
    settings = dict(base_model=base, lora_rank=8, learning_rate=2e-3, learning_rate_schedule="constant", max_steps=4, completions_per_prompt=4, prompt_groups_per_step=8, eval_every=0)
    program("train", name, "--runs", "runs", "--name", name, "--cpu", "--json", "--ignore-preflight-errors", *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
    [run] = [found for found in (FOLDER / "runs").iterdir() if f"-{name}-" in found.name]
    out = FOLDER / f"{name}-exports"
    out.mkdir()
    for server, command, model, is_switched in servers(f"{run}@last", base, out):
        if os.environ.get("SERVERS") and not any(part in server for part in os.environ["SERVERS"].split(",")):
            continue
        start = time.time()
        document = proven(command, model, is_switched, f"{run}@last")
        is_alarm = document["differs"] is not False
        count, alarms = count + 1, alarms + is_alarm
        nats = document.get("log_prob_difference")
        nats = "n/a" if nats is None else f"{nats:.5f}"
        print(f"{name:12} {server:36} {nats:>8} nats  {time.time() - start:5.1f} s  {document['verdict']}", flush=True)
        for check in document.get("checks", []):
            if check["outcome"] != "equal":
                print(f"    {check['name']}: {check['outcome']}: {check['detail']}")
        for finding in document["findings"]:
            print(f"    {finding['fault']}: {finding['sentence']}")
print(f"{alarms} false alarms of {count}")
sys.exit(bool(alarms))
