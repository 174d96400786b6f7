#!/usr/bin/env python3
"""Logs of other programs, written by these programs, for tests/eval_logs: the answers of two models of our own to sums.

    python3 scripts/eval-logs.py inspect OUT [PROMPTS EPOCHS]   (inspect-ai 0.3.285: .eval and .json)
    python3 scripts/eval-logs.py lm-eval OUT                    (lm-eval 0.4.13: samples of a task with two filters, and of choices)
    python3 scripts/eval-logs.py verifiers OUT                  (verifiers 0.1.8.post2: results.jsonl)
    python3 scripts/eval-logs.py traces OUT [URL MODEL]         (verifiers 0.4.0: traces.jsonl, of a server of its own or of one that is given)
    python3 scripts/eval-logs.py promptfoo OUT PROMPTFOO        (promptfoo 0.121.20, the path of its program: JSON and JSONL)

Each program in an environment of its own; no network. The answers of a model depend on its name alone.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

MODELS = {"small": 0.4, "large": 0.8}


def answers(model):
    """The answers of a model, in order: right by its share."""
    generator = random.Random(model)

    def answer(prompt):
        number = int(prompt.split("What is ")[1].split("+")[0])
        return f"The answer is {2 * number if generator.random() < MODELS[model] else 2 * number + 1}"

    return answer


def question(number):
    return f"What is {number}+{number}?"


def rows(count):
    return [{"id": f"q{number}", "question": question(number), "answer": str(2 * number)} for number in range(count)]


def inspect(out, count=30, epochs=2):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelAPI, ModelOutput, get_model, modelapi
    from inspect_ai.scorer import Score, includes, match, mean, scorer

    class Own(ModelAPI):
        def __init__(self, model_name, base_url=None, api_key=None, config=None, **more):
            super().__init__(model_name)
            self.answer = answers(model_name)

        async def count_tokens(self, *texts, **more):
            return 10

        async def generate(self, input, tools, tool_choice, config):
            return ModelOutput.from_content(self.model_name, self.answer(input[-1].text))

    @modelapi(name="own")
    def own():
        return Own

    @scorer(metrics=[mean()])
    def odd():
        values = [float("nan"), "great", {"a": 1, "b": 0}, "C", "P", "N", True, 0.3]

        async def score(state, target):
            return Score(value=values[int(state.sample_id[1:]) % len(values)])

        return score

    samples = [Sample(id=row["id"], input=row["question"], target=row["answer"]) for row in rows(count)]

    def write(name, model, log_format, **task):
        with tempfile.TemporaryDirectory() as folder:
            [log] = eval(
                Task(name="sums", **task), model=get_model(f"own/{model}", memoize=False), log_dir=folder,
                log_format=log_format, display="none", max_samples=1,
            )
            assert log.status == "success", log.error
            [file] = pathlib.Path(folder).iterdir()
            (out / f"{name}.{log_format}").write_bytes(file.read_bytes())

    for model in MODELS:
        write(model, model, "eval", dataset=samples, scorer=[match(), includes()], epochs=epochs)
    write("large", "large", "json", dataset=samples[:3], scorer=[match(), includes()], epochs=epochs)
    write("odd", "small", "eval", dataset=samples[:8], scorer=odd())


def lm_eval(out):
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    class Own(LM):
        def __init__(self, name):
            super().__init__()
            self.answer, self.generator = answers(name), random.Random(name)

        def generate_until(self, requests, **more):
            return [self.answer(request.args[0]) for request in requests]

        def loglikelihood(self, requests, **more):
            return [(-9 * self.generator.random(), False) for _ in requests]

        def loglikelihood_rolling(self, requests, **more):
            raise NotImplementedError

    common = (
        "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        'doc_to_text: "{{question}}"\n'
    )
    sums = (
        'task: sums\noutput_type: generate_until\ndoc_to_target: "{{answer}}"\ngeneration_kwargs: {until: ["\\n"]}\n'
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\nfilter_list:\n"
        "  - {name: strict, filter: [{function: take_first}]}\n"
        "  - {name: last-number, filter: [{function: regex, regex_pattern: '(\\d+)\\D*$'}, {function: take_first}]}\n"
    )
    choice = (
        'task: choice\noutput_type: multiple_choice\ndoc_to_choice: ["one", "two", "three"]\ndoc_to_target: 1\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        folder = pathlib.Path(folder)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(10)))
        (folder / "sums.yaml").write_text(sums + common)
        (folder / "choice.yaml").write_text(choice + common)
        for model in MODELS:
            result = simple_evaluate(
                model=Own(model), tasks=["sums", "choice"], task_manager=TaskManager(include_path=str(folder)),
                log_samples=True, bootstrap_iters=0,
            )
            tracker = EvaluationTracker(output_path=str(folder / "logs"))
            tracker.general_config_tracker.model_name_sanitized = f"own__{model}"
            tracker.date_id = "2026-01-02T03-04-05.678901"
            for task, samples in result["samples"].items():
                tracker.save_results_samples(task_name=task, samples=samples)
            for file in (folder / "logs" / f"own__{model}").glob("samples_*"):
                (out / f"own__{model}").mkdir(exist_ok=True)
                (out / f"own__{model}" / file.name).write_bytes(file.read_bytes())


def verifiers(out):
    from verifiers.utils.eval_utils import make_dataset

    answer, found = answers("small"), {"state_columns": []}
    asked = [row for row in rows(4) for _ in range(2)]
    said = [answer(row["question"]) for row in asked]
    rewards = [float(text.endswith(f" {row['answer']}")) for text, row in zip(said, asked)]
    timing = {"generation_ms": 1.0, "scoring_ms": 0.0, "total_ms": 1.0}
    results = {
        "example_id": [int(row["id"][1:]) for row in asked],
        "prompt": [[{"role": "system", "content": "Add."}, {"role": "user", "content": row["question"]}] for row in asked],
        "completion": [[{"role": "assistant", "content": text}] for text in said],
        "task": ["sums"] * len(asked), "info": [{}] * len(asked), "answer": [row["answer"] for row in asked],
        "reward": rewards, "metrics": {"right": rewards}, "state": [{"timing": timing}] * len(asked), "metadata": found,
    }
    make_dataset(results).to_json(out / "results.jsonl")


SUMS = """
import verifiers.v1 as vf

__all__ = ["Sums"]

class Data(vf.TaskData):
    answer: int

class Sum(vf.Task[Data]):
    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.endswith(f" {self.data.answer}"))

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 17)

    @vf.metric
    async def letters(self, trace: vf.Trace) -> float:
        return len(trace.last_reply)

class Sums(vf.Taskset[Sum, vf.TasksetConfig]):
    def load(self):
        for number in range(4):
            yield Sum(Data(prompt=f"What is {number}+{number}?", system_prompt="Add.", answer=2 * number), self.config.task)
"""


def traces(out, url=None, model="small"):
    """Episodes of a taskset; a server of its own refuses one of them."""
    import asyncio
    import http.server
    import shutil
    import threading

    from verifiers.v1.cli.eval.runner import run_eval
    from verifiers.v1.configs.cli.eval import EvalConfig

    answer = answers(model)

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            status, body = 200, {
                "id": "1", "object": "chat.completion", "created": 1, "model": model,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer(asked)}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
            }
            if asked.startswith("What is 3"):
                status, body = 400, {"error": {"message": "the model is busy", "type": "invalid_request_error"}}
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    if url is None:
        server = http.server.HTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
    os.environ.setdefault("OWN_KEY", "none")
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "sums.py").write_text(SUMS)
        shutil.copyfile(here / "verifiers_service.py", folder / "verifiers_service.py")
        sys.path.insert(0, str(folder))
        agent = {"runtime": {"type": "subprocess"}, "harness": {"id": "verifiers-service"}}
        config = EvalConfig.model_validate({
            "env": {"taskset": {"id": "sums"}, "agent": agent}, "model": model, "client": {"base_url": url, "api_key_var": "OWN_KEY"},
            "num_rollouts": 2, "max_concurrent": 1, "push": False, "rich": None, "output_dir": folder / "out",
        })
        asyncio.run(run_eval(config))
        [file] = (folder / "out").glob("**/traces.jsonl")
        # Folders of runtimes are this machine's.
        text = file.read_text().replace(f"{pathlib.Path.home()}/.cache/verifiers/runtimes/subprocess/", "/tmp/verifiers/")
        (out / "traces.jsonl").write_text(text)


def promptfoo(out, program):
    models = """module.exports = class {
  constructor(options) { this.name = options.config.name }
  id() { return `own:${this.name}` }
  async callApi(prompt, { vars }) {
    if (vars.n === 4) return { error: 'the model is busy' }
    return { output: vars[this.name], tokenUsage: { total: 20, prompt: 15, completion: 5 } }
  }
}
"""
    tests = []
    said = {model: answers(model) for model in MODELS}
    for number in range(5):
        given = {model: answer(question(number)) for model, answer in said.items()}
        checks = [{"type": "regex", "value": f"\\b{2 * number}$", "metric": "sum"}, {"type": "icontains", "value": "answer"}]
        tests.append({"description": f"sum {number}", "vars": {"n": number, **given}, "assert": checks})
    config = {
        "description": "sums", "prompts": ["What is {{n}}+{{n}}?"], "tests": tests, "evaluateOptions": {"repeat": 2},
        "providers": [{"id": "file://own.js", "config": {"name": model}} for model in MODELS],
    }
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "own.js").write_text(models)
        (folder / "config.json").write_text(json.dumps(config))
        quiet = {f"PROMPTFOO_DISABLE_{name}": "1" for name in ("TELEMETRY", "UPDATE", "REMOTE_GENERATION")}
        subprocess.run(
            [program, "eval", "-c", "config.json", "-o", "out.json", "-o", "out.jsonl", "--no-cache", "--no-table"],
            cwd=folder, env={**os.environ, **quiet, "PROMPTFOO_CONFIG_DIR": str(folder / "state")}, check=False,
        )
        for extension in ("json", "jsonl"):
            (out / f"promptfoo.{extension}").write_bytes((folder / f"out.{extension}").read_bytes())


if __name__ == "__main__":
    kind, out, *more = sys.argv[1:]
    out = pathlib.Path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    if kind == "promptfoo":
        promptfoo(out, pathlib.Path(more[0]).absolute())
    elif kind == "traces":
        traces(out, *more)
    else:
        {"inspect": inspect, "lm-eval": lm_eval, "verifiers": verifiers}[kind](out, *map(int, more))
