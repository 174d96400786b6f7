"""An agent: asks the model for an invoice as JSON, checks the answer, asks once more, and says what that is worth."""
import json
import os
import sys
import urllib.request


def chat(messages):
    # As the `openai` client does with the same variables: OpenAI().chat.completions.create(model=..., messages=...)
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps({"model": os.environ["OPENAI_MODEL"], "messages": messages}).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["choices"][0]["message"]


def wrong_fields(text, expected):
    try:
        found = json.loads(text)
    except ValueError:
        return list(expected)
    return [name for name in expected if not isinstance(found, dict) or found.get(name) != expected[name]]


row = json.loads(sys.stdin.readline())
messages, expected = row["messages"], row["expected"]
for attempt in range(2):
    answer = chat(messages)
    wrong = wrong_fields(answer["content"], expected)
    if not wrong:
        break
    # The next request repeats the answer: the model goes on with the tokens that it has sampled.
    messages += [answer, {"role": "user", "content": "Wrong: " + ", ".join(wrong) + ". Answer again."}]
score = 1 - len(wrong) / len(expected) - 0.1 * attempt
reasons = [f"wrong: {name}" for name in wrong]
print(json.dumps({"score": max(0, round(score, 3)), "exact": not wrong, "reasons": reasons}))
