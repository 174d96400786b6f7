"""The reward of a completion: a number, or a dict with tier or score, failure class and reasons."""


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
