"""Calls a reward function: `_reward.py FILE:NAME SETTINGS`, as `kind = "python"` starts it. Questions are lines of
standard input ({"id", "completion", "row"}), answers lines of standard output; what the function prints goes to
standard error. The package calls a function of its own process by the same code (`_callable.py`).

NAME is called by the names of its parameters:

completions, completion_ids  as TRL calls it: lists of prompts, completions, token ids and the rows' columns; a list of
                           numbers or None
data_source, solution_str  as verl calls compute_score; in the plural a batch
parser, state, info        as verifiers calls it, with messages; a rubric's functions with its weights; those of a group
                           of rubrics; a function of `states` or `completions` with the answers to one row
others                     the completion, then the row, or its columns by name
"""
import ast, asyncio, importlib.util, inspect, json, math, os, re, select, sys, traceback, types

PIPE_BYTES = 1 << 16
# Answered together at most.
MOST = 256
NOT_COLUMNS = ("prompt", "completion", "completion_ids")
# Names under which other trainers' rows have what rows here name `expected`.
EXPECTED = ("answer", "ground_truth", "solution", "target", "label", "reference")
ANSWER_KEYS = ("score", "tier", "reward")
# Parameters by which verifiers knows a function of a group.
OF_GROUPS = {"states", "prompts", "completions", "answers", "tasks", "infos"}
IDS = ("completion_ids", "the sampled token ids, which are known where a model of the program samples: not in `score`, nor of an endpoint")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Wrong(Exception):
    """A sentence for the user."""


class Reward:
    def __init__(self, place, settings):
        self.file, _, self.name = place.rpartition(":")
        self.range, self.form, self.zero = settings["range"], settings["completions"], settings["zero"]
        found = self.load()
        self.rubric = list(self.members(found))
        if not self.rubric and not callable(found):
            raise Wrong(f"{place} is {type(found).__name__}: name a function, or a rubric that has functions")
        self.functions = [self.described(found)] if not self.rubric else []
        self.is_batched = any(member.is_group for member in self.rubric) if self.rubric else self.functions[0][3] == "batch"

    def members(self, found):
        """A rubric's functions, and those of the rubrics in it."""
        for inner in getattr(found, "rubrics", None) or []:
            yield from self.members(inner)
        functions = getattr(found, "funcs", None) or getattr(found, "reward_funcs", None)
        if isinstance(functions, list):
            weights = getattr(found, "weights", None) or getattr(found, "reward_weights", None) or [1.0] * len(functions)
            if len(weights) != len(functions):
                raise Wrong(f"{self.name} has {len(functions)} functions and {len(weights)} weights")
            objects = {"parser": getattr(found, "parser", None), **getattr(found, "class_objects", {})}
            providers = getattr(found, "score_object_providers", [])
            for function, weight in zip(functions, weights):
                yield Member(function, float(weight), objects, providers)

    def load(self):
        with open(self.file, "rb") as file:  # it may name its encoding, or have a byte order mark
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
        if {"completions", "completion_ids", "solution_strs"} & set(names):
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
        if self.rubric:
            return self.by_rubric(questions)
        return self.batch(questions) if self.is_batched else [self.scored(self.call(self.functions[0], question)) for question in questions]

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
        if all("completion_ids" in question for question in questions):
            given["completion_ids"] = [question["completion_ids"] for question in questions]
        given["trainer_state"] = trainer_state(questions[0])
        given["log_metric"] = lambda name, value: metrics.update(metric(name, value))
        given["log_extra"] = lambda *_: None
        for parameter in parameters:
            if parameter.name not in given and parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                given[parameter.name] = [self.column(row, parameter.name) for row in rows]
        names = {parameter.name for parameter in parameters}
        try:
            values = wait(function(**{key: value for key, value in given.items() if takes_all or key in names}))
        except (TypeError, AttributeError, KeyError) as error:
            one = given["completions"][0]
            if isinstance(one, str) and re.search("string ind|'str' object", str(error)):
                error.form = "texts: `completions = \"messages\"`"
            elif not isinstance(one, str) and re.search("'list'|'dict'|not list|list indices|not dict", str(error)):
                error.form = "lists of messages: `completions = \"text\"`"
            raise
        values = values.tolist() if hasattr(values, "tolist") else values
        if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
            raise Wrong(f"{self.name} returned {shown(values)} for {len(questions)} completions: a list of numbers is needed")
        values = list(values)
        if len(values) != len(questions):
            raise Wrong(f"{self.name} returned {len(values)} rewards for {len(questions)} completions")
        answers = [self.checked(value) for value in values]
        return [{**answer, "metrics": {**answer.get("metrics", {}), **metrics}} for answer in answers]

    def checked(self, value, score=None):
        try:
            return (score or self.scored)(value)
        except Wrong as error:
            return {"error": str(error)}

    def by_rubric(self, questions):
        """An answer to each question, by a rubric's functions in their order."""
        states, rows = [], {}
        for place, question in enumerate(questions):
            row = question["row"] or {}
            state = {"prompt": row.get("prompt", row.get("messages", [])), "completion": self.completion(question, "messages"),
                     "answer": row.get("answer", row.get("expected", "")), "info": row.get("info", {}), "task": row.get("task", ""),
                     "input": row, "trajectory": [], "timing": {}}
            states.append(state)
            rows.setdefault(json.dumps(row, sort_keys=True, default=str), []).append(place)
        values = [[None] * len(questions) for _ in self.rubric]
        problems = [None] * len(questions)
        for found, member in zip(values, self.rubric):
            for places in rows.values() if member.is_group else [[place] for place in range(len(questions))]:
                try:
                    given = member.call([states[place] for place in places])
                    for place, value in zip(places, given):
                        found[place] = value
                except Exception as error:
                    # A metric, which has no weight, decides nothing.
                    if member.weight != 0 and not isinstance(error, Wrong):
                        raise
                    for place in places:
                        problems[place] = problems[place] or (str(error) if member.weight != 0 else None)
        return [{"error": problem} if problem else self.checked([found[place] for found in values], self.sum)
                for place, problem in enumerate(problems)]

    def sum(self, values):
        """The answer of a rubric's values: those that are None neither add nor cost anything."""
        known = [(member, value) for member, value in zip(self.rubric, values) if value is not None]
        weights = [member.weight for member, _ in known if member.weight != 0]
        if not weights:
            return self.scored(None)
        ends = self.range or [sum(weight for weight in weights if weight < 0), sum(weight for weight in weights if weight > 0)]
        metrics = {}
        for member, value in known:
            metrics.update(metric(member.name, value))
        total = sum(number(value, member.name) * member.weight for member, value in known if member.weight != 0)
        return {**self.of_number(total, ends), "metrics": metrics}

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
                     "info": row.get("info", {}), "task": row.get("task", ""), "answer": row.get("answer", row.get("expected", "")), "parser": None}
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
        if name in row and name != IDS[0]:
            return row[name]
        if name in EXPECTED and "expected" in row:
            return row["expected"]
        if default is not inspect.Parameter.empty:
            return default
        if name == IDS[0]:
            raise Wrong(f"{self.name} asks for `{name}`, {IDS[1]}")
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
            return {"no_reward": f"{self.name} returned None: no reward"}
        if isinstance(value, dict):
            return self.of_dict(value)
        return self.of_number(number(value, self.name))

    def of_number(self, value, ends=None):
        least, full = ends or self.range or (0.0, 1.0)
        beyond = max(least - value, value - full)
        if self.range is None and beyond > 1e-9 * max(1.0, abs(least), abs(full)):
            raise Wrong(f"{self.name} returned {value:g}, which is not from {least:g} to {full:g}: write `range = [LEAST, FULL]` beside `reward`")
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
        known = {"tier", "failure", "exact", "fields", "reasons", "reason", "metrics", *ANSWER_KEYS}
        metrics = answer["metrics"] = {}
        numbers = {key: other for key, other in value.items() if key not in known and isinstance(other, (bool, int, float))}
        for key, other in {**value.get("metrics", {}), **numbers}.items():
            metrics.update(metric(key, other))
        score = value.get("score", value.get("reward"))
        if "tier" not in answer:
            own = self.scored(None) if score is None else self.of_number(number(score, self.name))
            answer = {**answer, **own}
        return answer

    def of_parts(self, value):
        """Parts by name: their mean counts, and each is a metric."""
        shares, reasons = {}, []
        for name, part in value.items():
            answer = self.scored(part)
            if "no_reward" in answer:
                continue
            shares[name] = answer["score"] if "score" in answer else {"valid": 1.0, "invalid": 0.5}.get(answer.get("tier"), 0.0)
            reasons += [f"{name}: {reason}" for reason in answer.get("reasons") or ([f"{shares[name]:g}"] if shares[name] < 1 else [])]
        if not shares:
            return self.scored(None)
        metrics = {}
        for name, share in shares.items():
            metrics.update(metric(name, share))
        return {"score": sum(shares.values()) / len(shares), "metrics": metrics, "reasons": reasons}


class Member:
    """A function of a rubric, with its weight and the objects of the rubric."""

    def __init__(self, function, weight, objects, providers):
        self.function, self.weight, self.objects, self.providers = function, weight, objects, providers
        self.name = getattr(function, "__name__", "reward")
        signature = inspect.signature(function)
        self.names = set(signature.parameters)
        self.takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
        returned = signature.return_annotation
        self.is_group = bool(self.names & OF_GROUPS) or getattr(returned, "__origin__", returned) is list or str(returned).startswith("list")

    def call(self, states):
        """The values of these answers: to one row, if the function takes them together."""
        if self.is_group:
            given = {f"{key}s": [state[key] for state in states] for key in ("prompt", "completion", "answer", "task", "info")}
            given["states"] = states
        else:
            given = {**states[0]["input"], **{key: states[0][key] for key in ("prompt", "completion", "answer", "task", "info")}, "state": states[0]}
        given.update(self.objects)
        for provider in self.providers if not self.is_group else []:
            given.update(provider(states[0]))
        value = wait(self.function(**{key: value for key, value in given.items() if self.takes_all or key in self.names}))
        if not self.is_group:
            return [value]
        if not hasattr(value, "__len__") or len(value) != len(states):
            raise Wrong(f"{self.name} returned {shown(value)} for {len(states)} completions: a list of as many numbers is needed")
        return value


def wait(value):
    async def result():
        return await value
    return asyncio.run(result()) if inspect.isawaitable(value) else value


def trainer_state(question):
    """As TRL's: what is known of the run; without one (`score`, `task check`) as at the start of a run of one step."""
    return types.SimpleNamespace(**question.get("trainer_state", {"global_step": 0, "max_steps": 1}))


def metric(name, value):
    """A metric by its name, which the record can write; none where the value is no finite number."""
    try:
        return {re.sub(r"[^A-Za-z0-9_-]", "_", str(name))[:40] or "reward": number(value, name)}
    except Wrong:
        return {}


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
