"""Calls a reward function: `_reward.py FILE:NAME SETTINGS`, as `kind = "python"` starts it. Questions are lines of
standard input ({"id", "completion", "row"}), answers lines of standard output; what the function prints goes to
standard error. The package calls a function of its own process by the same code (`_callable.py`).

NAME is called by the names of its parameters:

completions                as TRL calls it: lists of prompts, completions and the rows' columns; a list of numbers or None
data_source, solution_str  as verl calls compute_score; in the plural a batch
parser, state, info        as verifiers calls it, with messages; a rubric's functions with its weights
others                     the completion, then the row, or its columns by name
"""
import ast, asyncio, importlib.util, inspect, json, math, os, select, sys, traceback

PIPE_BYTES = 1 << 16
# Answered together at most.
MOST = 256
NOT_COLUMNS = ("prompt", "completion", "completion_ids")
# Names under which other trainers' rows have what rows here name `expected`.
EXPECTED = ("answer", "ground_truth", "solution", "target", "label", "reference")
ANSWER_KEYS = ("score", "tier", "reward")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Wrong(Exception):
    """A sentence for the user."""


class Reward:
    def __init__(self, place, settings):
        self.file, _, self.name = place.rpartition(":")
        self.range, self.form, self.zero = settings["range"], settings["completions"], settings["zero"]
        found = self.load()
        functions = getattr(found, "funcs", None) or getattr(found, "reward_funcs", None)
        self.is_rubric = isinstance(functions, list)
        if self.is_rubric:
            self.weights = getattr(found, "weights", None) or getattr(found, "reward_weights", None) or [1.0] * len(functions)
        elif not callable(found):
            raise Wrong(f"{place} is {type(found).__name__}: name a function")
        self.objects = {"parser": getattr(found, "parser", None), **getattr(found, "class_objects", {})}
        self.functions = [self.described(function) for function in (functions if self.is_rubric else [found])]
        self.is_batched = self.functions[0][3] == "batch"

    def load(self):
        with open(self.file, encoding="utf-8") as file:
            tree = ast.parse(file.read(), self.file)
        lines = [node.lineno for node in tree.body if getattr(node, "name", None) == self.name]
        if len(lines) > 1:
            raise Wrong(f"{self.file} defines {self.name} {len(lines)} times, in lines {', '.join(map(str, lines))}: rename all but one")
        stem = os.path.splitext(os.path.basename(self.file))[0]
        sys.path[:1] = [os.path.dirname(os.path.abspath(self.file)), os.getcwd()]
        spec = importlib.util.spec_from_file_location(stem, self.file)
        found = sys.modules[stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        for part in self.name.split("."):
            if not hasattr(found, part):
                names = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")] if hasattr(found, "__dict__") else []
                raise Wrong(f"{self.file} has no {self.name}" + (f": it has {', '.join(names)}" if names else ""))
            found = getattr(found, part)
        return found

    def described(self, function):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            parameters = [inspect.Parameter("completion", inspect.Parameter.POSITIONAL_ONLY)]
        names = [parameter.name for parameter in parameters]
        takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
        if self.is_rubric:
            form = "verifiers"
        elif {"completions", "solution_strs"} & set(names):
            form = "batch"
        elif "solution_str" in names:
            form = "verl"
        elif {"parser", "state", "info"} & set(names):
            form = "verifiers"
        else:
            form = "plain"
            if not any(parameter.kind in POSITIONAL or parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters) and "completion" not in names:
                raise Wrong(f"{self.name} takes no completion: write `def {self.name}(completion, row)`, or `(completions, **kwargs)` as TRL has it")
        return function, parameters, takes_all, form

    def answer(self, questions):
        """An answer to each question."""
        return self.batch(questions) if self.is_batched else [self.one(question) for question in questions]

    def batch(self, questions):
        function, parameters, takes_all, _ = self.functions[0]
        rows = [question["row"] or {} for question in questions]
        metrics = {}
        columns = {key for row in rows for key in row if key not in NOT_COLUMNS}
        given = {key: [row.get(key) for row in rows] for key in columns}
        given["prompts"] = [row.get("prompt", row.get("messages", "")) for row in rows]
        given["completions"] = [self.completion(question, "row") for question in questions]
        if "solution_strs" in {parameter.name for parameter in parameters}:
            given.update(data_sources=[row.get("data_source", "") for row in rows], extra_infos=[row.get("extra_info") for row in rows],
                         solution_strs=[question["completion"] for question in questions], ground_truths=[self.truth(row) for row in rows])
        given["trainer_state"] = None
        given["log_metric"] = lambda name, value: metrics.__setitem__(name, number(value, "log_metric"))
        given["log_extra"] = lambda *_: None
        for parameter in parameters:
            if parameter.name not in given and parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                given[parameter.name] = [self.column(row, parameter.name) for row in rows]
        names = {parameter.name for parameter in parameters}
        try:
            values = wait(function(**{key: value for key, value in given.items() if takes_all or key in names}))
        except (TypeError, AttributeError, KeyError) as error:
            one = given["completions"][0]
            error.form = "texts, as the row's `prompt` is one: `completions = \"messages\"`" if isinstance(one, str) else "lists of messages, as the row's are: `completions = \"text\"`"
            raise
        values = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
            raise Wrong(f"{self.name} returned {shown(values)} for {len(questions)} completions: a list of numbers is needed")
        values = list(values)
        if len(values) != len(questions):
            raise Wrong(f"{self.name} returned {len(values)} rewards for {len(questions)} completions")
        answers = [self.checked(value) for value in values]
        return [{**answer, "metrics": {**answer.get("metrics", {}), **metrics}} for answer in answers]

    def checked(self, value):
        try:
            return self.scored(value)
        except Wrong as error:
            return {"error": str(error)}

    def one(self, question):
        if not self.is_rubric:
            return self.scored(self.call(self.functions[0], question))
        names = [getattr(described[0], "__name__", "reward") for described in self.functions]
        values = [self.call(described, question) for described in self.functions]
        values = [0.0 if value is None else number(value, name) for value, name in zip(values, names)]
        total = sum(value * weight for value, weight in zip(values, self.weights))
        return {**self.scored(total), "metrics": dict(zip(names, values))}

    def call(self, described, question):
        function, parameters, takes_all, form = described
        row = question["row"] or {}
        names = [parameter.name for parameter in parameters]
        if form == "verl":
            default = [parameter.default for parameter in parameters if parameter.name == "ground_truth"]
            given = {"data_source": row.get("data_source", ""), "solution_str": question["completion"], "extra_info": row.get("extra_info"),
                     "ground_truth": self.truth(row, *default)}
            return wait(function(**{key: value for key, value in given.items() if takes_all or key in names}))
        if form == "verifiers":
            given = {**row, "completion": self.completion(question, "messages"), "prompt": row.get("prompt", row.get("messages", [])), "state": {},
                     "info": row.get("info", {}), "task": row.get("task", ""), "answer": row.get("answer", row.get("expected", "")), **self.objects}
            return wait(function(**{key: value for key, value in given.items() if takes_all or key in names}))
        text, positional, named, is_first = self.completion(question, "text"), [], {}, True
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                named.update({key: value for key, value in row.items() if key not in names})
            elif parameter.kind is parameter.VAR_POSITIONAL:
                if is_first:
                    positional.append(text)
            elif parameter.name == "completion" or is_first and parameter.kind in POSITIONAL:
                named[parameter.name] = text
            elif parameter.name == "row":
                named["row"] = row
            else:
                named[parameter.name] = self.column(row, parameter.name, parameter.default)
            is_first = False
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in named:
                positional.append(named.pop(parameter.name))
        return wait(function(*positional, **named))

    def truth(self, row, default=inspect.Parameter.empty):
        """As verl's rows have it."""
        model = row.get("reward_model")
        found = model.get("ground_truth") if isinstance(model, dict) else None
        return self.column(row, "ground_truth", default) if found is None else found

    def column(self, row, name, default=inspect.Parameter.empty):
        if name in row:
            return row[name]
        if name in EXPECTED and "expected" in row:
            return row["expected"]
        if default is not inspect.Parameter.empty:
            return default
        has = f": it has {', '.join(row)}" if row else ""
        raise Wrong(f"{self.name} asks for `{name}`, which the row lacks{has}")

    def completion(self, question, form):
        text, row = question["completion"], question["row"] or {}
        form = self.form or form
        if form == "row":
            form = "text" if isinstance(row.get("prompt"), str) else "messages"
        return text if form == "text" else [{"role": "assistant", "content": text}]

    def scored(self, value):
        if value is None:
            return {"score": 0.0, "failure": "no_reward", "reasons": [f"{self.name} returned None: no reward"]}
        if isinstance(value, dict):
            return self.of_dict(value)
        return self.of_number(number(value, self.name))

    def of_number(self, value):
        if self.range is None and not 0 <= value <= 1:
            raise Wrong(f"{self.name} returned {value:g}, which is not from 0 to 1: write `range = [LEAST, FULL]` beside `reward`")
        least, full = self.range or (0.0, 1.0)
        share = (min(max(value, least), full) - least) / (full - least)
        return {"tier": self.zero} if share == 0 and self.zero == "unparsable" else {"score": share}

    def of_dict(self, value):
        if not value:
            raise Wrong(f"{self.name} returned an empty dict: a number, or `score` or `tier` is needed")
        if not any(key in value for key in ANSWER_KEYS):
            return self.of_parts(value)
        answer = {key: value[key] for key in ("tier", "failure", "exact", "fields") if value.get(key) is not None}
        reasons = value.get("reasons", value.get("reason", []))
        answer["reasons"] = [reasons] if isinstance(reasons, str) else list(reasons)
        metrics = dict(value.get("metrics", {}))
        known = {"tier", "failure", "exact", "fields", "reasons", "reason", "metrics", *ANSWER_KEYS}
        metrics.update({key: float(other) for key, other in value.items() if key not in known and isinstance(other, (bool, int, float))})
        answer["metrics"] = metrics
        score = value.get("score", value.get("reward"))
        if score is not None and "tier" not in answer:
            answer = {**answer, **self.of_number(number(score, self.name))}
        return answer

    def of_parts(self, value):
        """Parts by name: their mean counts, and each is a metric."""
        shares, reasons = {}, []
        for name, part in value.items():
            answer = self.scored(part)
            shares[name] = answer["score"] if "score" in answer else {"valid": 1.0, "invalid": 0.5}.get(answer.get("tier"), 0.0)
            reasons += [f"{name}: {reason}" for reason in answer.get("reasons") or ([f"{shares[name]:g}"] if shares[name] < 1 else [])]
        return {"score": sum(shares.values()) / len(shares), "metrics": shares, "reasons": reasons}


def wait(value):
    async def result():
        return await value
    return asyncio.run(result()) if inspect.isawaitable(value) else value


def number(value, name):
    if isinstance(value, (str, bytes)):
        raise Wrong(f"{name} returned the text {shown(value)}: a number is needed")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise Wrong(f"{name} returned {shown(value)}: a number is needed") from None
    if not math.isfinite(found):
        raise Wrong(f"{name} returned {found}")
    return found


def shown(value):
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def told(error, file):
    """What went wrong, with the last place in the user's file."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError):
        return f"{os.path.basename(error.filename or file)} line {error.lineno}: {text}"
    if isinstance(error, ModuleNotFoundError):
        text += f": if it is a file of the task, name it in `files`, else install it for {sys.executable}"
    if hasattr(error, "form"):
        text += f" (completions are {error.form} changes that)"
    here = os.path.abspath(file)
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.abspath(frame.filename) == here]
    places = places or traceback.extract_tb(error.__traceback__)[-1:]
    if not places:
        return text
    inside = "" if places[-1].name == "<module>" else f" in {places[-1].name}"
    return f"{label(places[-1].filename)} line {places[-1].lineno}{inside}: {text}"


def label(file):
    """A file's name; a notebook's cell as IPython names it."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    try:
        return " ".join(shell.compile.format_code_name(file))
    except (AttributeError, TypeError):
        return os.path.basename(file)


def questions(source):
    """Lists of questions: all whole lines that wait."""
    rest = b""
    while True:
        piece = os.read(source, PIPE_BYTES)
        if not piece:
            return
        rest += piece
        while len(rest) < 1 << 24 and select.select([source], [], [], 0)[0]:
            piece = os.read(source, PIPE_BYTES)
            if not piece:
                break
            rest += piece
        lines = rest.split(b"\n")
        rest = lines.pop()
        for first in range(0, len(lines), MOST):
            yield lines[first:first + MOST]


class Lines:
    """Writes lines of answers to lines of questions; what the function raises is an answer, too."""

    def __init__(self, place, load, sink):
        self.place, self.sink, self.own = place, sink, os.getpid()
        self.reward, self.problem, _ = self.guarded(load)

    def guarded(self, function, *arguments):
        """The result, or None and what went wrong, and whether a function has raised it."""
        try:
            return function(*arguments), None, False
        except Wrong as error:
            return None, str(error), False
        except (Exception, SystemExit) as error:
            self.raised(error)
            return None, told(error, self.place.rpartition(":")[0]), True
        finally:
            if os.getpid() != self.own:  # a child that the function has forked
                os._exit(0)

    def raised(self, error):
        traceback.print_exception(type(error), error, error.__traceback__)

    def write(self, ids, answers):
        text = b""
        for id, answer in zip(ids, answers):
            try:
                line = json.dumps({**answer, "id": id}, allow_nan=False)
            except (TypeError, ValueError) as error:
                line = json.dumps({"id": id, "error": f"{self.place} returned what is no JSON: {error}"})
            text += line.encode() + b"\n"
        while text:
            text = text[os.write(self.sink, text):]

    def ask(self, lines):
        asked = [json.loads(line) for line in lines]
        ids = [question["id"] for question in asked]
        answers, why, has_raised = self.guarded(self.reward.answer, asked) if self.reward else (None, self.problem, False)
        if has_raised and len(lines) > 1:
            # Which of them it fails for; parsed anew, since a function may change what it is given.
            for line in lines:
                self.ask([line])
        else:
            self.write(ids, answers or [{"error": why}] * len(ids))

    def answer_all(self, source):
        for lines in questions(source):
            for together in [lines] if self.reward and self.reward.is_batched else [[line] for line in lines]:
                self.ask(together)


def main():
    source, sink = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # in order with tracebacks
    place, settings = sys.argv[1], json.loads(sys.argv[2])
    Lines(place, lambda: Reward(place, settings), sink).answer_all(source)


if __name__ == "__main__":
    main()
