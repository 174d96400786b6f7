"""Answers the calls of one conversation with the classes of bfcl-eval; after each turn its own checker judges them.

The first line has the row's data. Argument: the folder in which bfcl_eval is installed.
"""
import json, sys

sys.path.insert(0, sys.argv[1])
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute_multi_turn_func_call

# What a class prints is not an answer.
answers, sys.stdout = sys.stdout, sys.stderr
row = json.loads(sys.stdin.readline())["row"]
turns = [[]]


def result_of(name, arguments):
    # The package evaluates the text of a call: a key that is not a name would be code.
    wrong = [key for key in arguments if not key.isidentifier()]
    if wrong:
        return {"error": f"not the name of an argument: {wrong[0]!r}"}
    call = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    turns[-1].append([call])
    is_long = "long_context" in row["id"]
    results, _ = execute_multi_turn_func_call([call], row["initial_config"], row["involved_classes"], "model", row["id"], is_long)
    return {"result": results[0]}


def verdict():
    # The checker executes the calls of all turns again, on instances that it keeps under the model's name.
    model = f"turn_{len(turns)}"
    found = multi_turn_checker(turns, row["ground_truth"][: len(turns)], row, None, model)
    turns.append([])
    return {"result": found["valid"] or found["error_message"]}


for line in sys.stdin:
    asked = json.loads(line)
    answer = result_of(asked["name"], asked["arguments"]) if "name" in asked else verdict()
    print(json.dumps(answer), file=answers, flush=True)
