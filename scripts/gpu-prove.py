"""`prove` against vLLM on a GPU: a run's adapter beside its base, the base, an adapter that vLLM loads and does not apply
(vllm-project/vllm#34186), the merged model, and that in fp8.

    python3 scripts/gpu-prove.py BINARY MODEL OUT [NAMES]    MODEL: a folder or a GGUF file, as `scripts/real-models` prints one; OUT: a folder for verdicts and
    logs; NAMES: what to prove of adapter,base,misnamed,merged,fp8,sglang, all by default

Trains `invoice` with default settings, exports, and starts vLLM three times at once (SGLang once, where it is installed). Each step has a timeout, the whole 9
minutes.
Exit code 1 where a correct server is called different, or the base is not told from the run; 77 without vLLM.
"""
import atexit, importlib.util, json, os, pathlib, shutil, signal, subprocess, sys, tempfile, time, urllib.request

BUDGET_SECONDS = 540
begun = time.time()
if importlib.util.find_spec("vllm") is None:
    print("not run: no vLLM", file=sys.stderr)
    sys.exit(77)
binary, model, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).absolute()
names = sys.argv[4].split(",") if sys.argv[4:] else None
out.mkdir(parents=True, exist_ok=True)
work = pathlib.Path(tempfile.mkdtemp(prefix="grpo-tui-prove-", dir=os.environ.get("WORK", "/dev/shm")))
atexit.register(shutil.rmtree, work, ignore_errors=True)
environment = dict(os.environ, VLLM_ALLOW_RUNTIME_LORA_UPDATING="1", VLLM_USE_FLASHINFER_SAMPLER="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
if importlib.util.find_spec("uvloop") is None:  # vLLM's server asks for nothing but `run`
    (work / "stubs").mkdir(exist_ok=True)
    (work / "stubs/uvloop.py").write_text("from asyncio import run\n")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(work / "stubs")]))
found = {}


def left(seconds):
    rest = BUDGET_SECONDS - (time.time() - begun)
    if rest < 5:
        sys.exit("FAIL prove: the time is over")
    return min(seconds, rest)


def step(name, *command, seconds=60):
    start = time.time()
    try:
        ended = subprocess.run([binary, *map(str, command)], capture_output=True, text=True, timeout=left(seconds))
    except subprocess.TimeoutExpired as late:
        said = (late.stderr or b"").decode(errors="replace")[-2000:]
        print(f"{name}: longer than {seconds} s", flush=True)
        return subprocess.CompletedProcess(command, 124, "", said)
    print(f"{name}: exit code {ended.returncode}, {time.time() - start:.1f} s", flush=True)
    return ended


def done(name, *command, seconds=60):
    ended = step(name, *command, seconds=seconds)
    if ended.returncode:
        sys.exit(f"FAIL prove: {name}: {ended.stderr[-2000:]}")
    return ended.stdout


class Server:
    """A server, with the models that it serves."""

    def __init__(self, name, command, port):
        self.name, self.command, self.port = name, command, port

    def begin(self):
        self.log = open(out / f"{self.name}.log", "w")
        self.start = time.time()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=environment, start_new_session=True)
        atexit.register(self.end)

    def wait(self):
        end = time.time() + left(200)
        while time.time() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        print(f"{self.name}: ready after {time.time() - self.start:.1f} s", flush=True)
                        return
            except OSError:
                time.sleep(0.5)
        code = self.process.poll()
        self.end()
        print((out / f"{self.name}.log").read_text()[-3000:])
        raise RuntimeError(f"{self.name}: no answer (exit code {code})")

    def end(self):
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        self.log.close()

    def load(self, name, adapter):
        """Adds an adapter while the server runs; False where it refuses that."""
        body = json.dumps({"lora_name": name, "lora_path": str(adapter)}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/load_lora_adapter", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status == 200
        except OSError as why:
            print(f"{self.name}: {name} is refused: {why}", flush=True)
            return False

    def prove(self, name, model):
        url = f"http://127.0.0.1:{self.port}/v1"
        limit = 100 if name == "fp8" else 200
        ended = step(f"prove {name}", "prove", url, "--model", model, "--run", run, "--runs", work / "runs", "--gpu", 0, "--limit", limit, "--json", seconds=200)
        try:
            document = json.loads(ended.stdout)
        except ValueError:
            document = {"error": ended.stderr[-2000:], "findings": [], "differs": None}
        document["exit_code"] = ended.returncode
        found[name] = document
        (out / "prove.json").write_text(json.dumps(found, indent=1))


def vllm(name, served, port, *more):
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(served), "--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port),
               "--dtype", "bfloat16", "--max-model-len", "2048", "--gpu-memory-utilization", "0.15", "--max-num-seqs", "64", "--disable-log-stats", "--enforce-eager", *more]  # compiled it takes 158 s to start
    return Server(name, command, port)


if model.endswith(".gguf"):
    done("import", "model", "import", model, "--out", work / "base")
    model = str(work / "base")
done("train", "train", "invoice", "--model", model, "--gpu", 0, "--runs", work / "runs", "--name", "proven", "--json", seconds=200)
[folder] = (events.parent for events in (work / "runs").glob("*/events.jsonl"))
run = f"{folder}@last"
done("export adapter", "model", "export", "--model", run, "--out", work / "adapter")
done("export merged", "model", "export", "--model", run, "--merged", "--out", work / "merged")
# Under names that no module has.
misnamed = shutil.copytree(work / "adapter", work / "misnamed") / "adapter_model.safetensors"
data = misnamed.read_bytes()
size = int.from_bytes(data[:8], "little")
header = data[8 : 8 + size].replace(b"base_model.model.model.", b"base_model.model.other.")
misnamed.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
rank = json.loads((work / "adapter/adapter_config.json").read_text())["r"]
rank = next(size for size in (8, 16, 32, 64, 128, 256) if size >= rank)
servers = [
    (vllm("vllm-fp8", work / "merged", 8013, "--quantization", "fp8"), [("fp8", "base")]),
    (vllm("vllm-merged", work / "merged", 8012), [("merged", "base")]),
    (vllm("vllm-adapter", model, 8011, "--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"trained={work / 'adapter'}"), [("adapter", "trained"), ("misnamed", "misnamed"), ("base", "base")]),
]
if importlib.util.find_spec("sglang"):
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(work / "merged"), "--served-model-name", "base", "--port", "8014", "--mem-fraction-static", "0.15"]
    servers.append((Server("sglang-merged", command, 8014), [("sglang", "base")]))
if names:
    if unknown := set(names) - {proof for _, proofs in servers for proof, _ in proofs}:
        sys.exit(f"FAIL prove: unknown names {unknown}")
    kept = [(server, [proof for proof in proofs if proof[0] in names]) for server, proofs in servers]
    servers = [(server, proofs) for server, proofs in kept if proofs]
failed = []
for server, _ in servers:
    server.begin()
    time.sleep(10)
for server, proofs in servers:
    # vLLM refuses to start where another process frees memory of the card while it measures.
    try:
        try:
            server.wait()
        except RuntimeError:
            server.begin()
            server.wait()
    except RuntimeError as why:
        failed.append(str(why))
        continue
    for name, served in proofs:
        if name != "misnamed" or server.load(name, work / name):
            server.prove(name, served)
        else:
            print(f"not proven: {name}", flush=True)
    server.end()
for name, document in found.items():
    faults = [finding["fault"] for finding in document["findings"]]
    print(f"{name}: {document.get('verdict', document.get('error'))}; log-probs {document.get('log_prob_difference')} nats/token, {document.get('seconds', 0):.1f} s")
    for finding in document["findings"]:
        print(f"    {finding['fault']}: {finding['sentence']}")
    not_applied = faults == ["adapter"]
    is_right = {"base": not_applied, "misnamed": not_applied, "fp8": document["differs"] is not None}.get(name, document["differs"] is False)
    if not is_right:
        failed.append(name)
print(f"{time.time() - begun:.0f} s; " + (f"FAIL: {'; '.join(failed)}" if failed else "pass"))
sys.exit(bool(failed))
