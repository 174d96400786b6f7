"""Scores completions: a JSON object a line in, a JSON object a line out."""
import json
import sys


def is_prime(number):
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def score(completion, row):
    parts = [part.strip() for part in completion.split("+")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return {"tier": "unparsable", "failure": "no_sum", "reasons": ["not two numbers with a + between"]}
    first, second = map(int, parts)
    if first + second != row["number"]:
        return {"score": 0.2, "failure": "wrong_sum", "reasons": [f"the sum is {first + second}"]}
    if not (is_prime(first) and is_prime(second)):
        return {"score": 0.5, "failure": "not_prime", "reasons": ["both numbers must be prime"]}
    return {"tier": "valid"}


for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = score(question["completion"], question["row"])
    except Exception as error:  # counted as scorer_error: no reward
        answer = {"error": repr(error)}
    print(json.dumps({"id": question["id"], **answer}), flush=True)
