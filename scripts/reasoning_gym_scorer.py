"""Judges answers `{"answer": ..}` by `score_answer` of the data set in dataset.json: a JSON object a line in, one a line out.

Without an argument: the form is the tier, and an answer that reasoning-gym gives 1 is exact. With `score`: its score alone, for a
part of the reward."""
import json, os, pathlib, signal, sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of numpy's threads reserves address space

try:
    import reasoning_gym
except ImportError as error:
    sys.exit(f"{error}: this task needs reasoning-gym, `{sys.executable} -m pip install reasoning-gym`")

MAX_SECONDS = 5
OBJECT = "an object or a list"
TYPES = {"a whole number": [int], "a string": [str], OBJECT: [dict, list]}
# Answers are evaluated as Python by some data sets: what they print is no line of ours.
OUTPUT, sys.stdout = sys.stdout, sys.stderr


class Malformed(Exception):
    """Tier, failure class and reason of an answer that is not of the form."""


def decoded(value):
    """Tuples, sets and dictionaries with other keys than strings, as scripts/reasoning-gym.py writes them."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(form, items)] = value.items()
        if form in ("$tuple", "$set"):
            return (tuple if form == "$tuple" else set)(map(decoded, items))
        if form == "$dict":
            return {decoded(key): decoded(item) for key, item in items}
    return {key: decoded(item) for key, item in value.items()}


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def answer_of(completion, kind):
    """The answer as text, which is what `score_answer` takes. `kind`: one of `TYPES`."""
    try:
        value = json.loads(completion, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        start = completion.strip()[:3]
        failure = "fence" if start == "```" else "syntax" if start[:1] == "{" else "prose"
        raise Malformed("unparsable", failure, str(error))
    if not isinstance(value, dict):
        raise Malformed("invalid", "wrong_type", 'not an object {"answer": ..}')
    if "answer" not in value:
        raise Malformed("invalid", "missing_key", "no key `answer`")
    if len(value) > 1:
        raise Malformed("invalid", "extra_key", f"the key `{next(key for key in value if key != 'answer')}` beside `answer`")
    answer = value["answer"]
    if type(answer) not in TYPES[kind]:
        raise Malformed("invalid", "wrong_type", f"`answer` is not {kind}")
    return json.dumps(answer) if kind == OBJECT else str(answer)


def late(*_):
    raise TimeoutError


def score_of(dataset, answer, row):
    """From 0 to 1; 0 for an answer that `score_answer` trips over."""
    entry = {**decoded(row["entry"]), "question": row["messages"][-1]["content"]}
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        return min(max(float(dataset.score_answer(answer, entry)), 0.0), 1.0)
    except (Exception, SystemExit):
        return 0.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def verdict(dataset, kind, question, is_part):
    row = question["row"]
    if not row or "entry" not in row:
        return {"error": "the row has no `entry`: make the rows with scripts/reasoning-gym.py"}
    try:
        answer = answer_of(question["completion"], kind)
    except Malformed as error:
        tier, failure, reason = error.args
        return {"score": 0} if is_part else {"tier": tier, "exact": False, "failure": failure, "reasons": [reason]}
    score = score_of(dataset, answer, row)
    if is_part:
        return {"score": score}
    is_right = score == 1
    reasons = [] if is_right else [f"reasoning-gym's score is {score:g}"]
    return {"tier": "valid", "exact": is_right, "fields": {"answer": is_right}, "metrics": {"score": score}, "reasons": reasons}


def main():
    made = json.loads(pathlib.Path(__file__).with_name("dataset.json").read_text(encoding="utf-8"))
    dataset = reasoning_gym.create_dataset(made["name"], **made["config"])
    signal.signal(signal.SIGALRM, late)
    for line in sys.stdin:
        question = json.loads(line)
        answer = verdict(dataset, made["answer"], question, sys.argv[1:] == ["score"])
        print(json.dumps({"id": question["id"], **answer}), file=OUTPUT, flush=True)


if __name__ == "__main__":
    main()
