"""Tools of the agents beside this file, for any of docs/agents.md's frameworks: a database of invoices, another for each row, and the verdict on its final state."""
import json, sqlite3, sys
from typing import Literal

SYSTEM = "Do what is asked by calling the functions."
DATABASE = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
with open("invoices.sql") as file:
    STATEMENTS = file.read()
with open("tools.json") as file:
    SCHEMAS = [{"type": "function", "function": tool["function"]} for tool in json.load(file)]
QUERY = """SELECT invoice.number, account, days FROM invoice LEFT JOIN reminder USING (number)
    WHERE account IS NOT NULL OR days IS NOT NULL"""


def find_invoices(vendor: str, status: Literal["open", "late", "paid"]) -> str:
    """The numbers of a vendor's invoices

    Args:
        vendor: The vendor's name
        status: What the invoices are
    """
    found = DATABASE.execute("SELECT number FROM invoice WHERE vendor = ? AND status = ?", (vendor, status))
    return json.dumps([{"number": number} for number, in found])


def pay(number: int, account: Literal["main", "travel", "garden"]) -> str:
    """Pays an invoice from an account

    Args:
        number: The invoice's number
        account: The account's name
    """
    statement = "UPDATE invoice SET status = 'paid', account = ? WHERE number = ? AND status <> 'paid'"
    return json.dumps({"changes": DATABASE.execute(statement, (account, number)).rowcount})


def remind(number: int, days: int) -> str:
    """Makes a reminder of an invoice in so many days

    Args:
        number: The invoice's number
        days: The number of days
    """
    return json.dumps({"changes": DATABASE.execute("INSERT INTO reminder VALUES (?, ?)", (number, days)).rowcount})


TOOLS = [find_invoices, pay, remind]


def result(name, arguments):
    """The text of a call's result, or what is wrong with the call."""
    try:
        return {tool.__name__: tool for tool in TOOLS}[name](**json.loads(arguments))
    except (KeyError, TypeError, ValueError) as error:
        return f"error: {error!r}"


def message(call):
    """The result of a call, for /v1/chat/completions."""
    return {"role": "tool", "tool_call_id": call.id, "content": result(call.function.name, call.function.arguments)}


def item(call):
    """The result of a call, for /v1/responses."""
    return {"type": "function_call_output", "call_id": call.call_id, "output": result(call.name, call.arguments)}


def requests():
    """Each row's request; once it is done, the row's verdict: the share of the invoices that are as expected."""
    # What a framework prints is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        row = json.loads(line)
        DATABASE.executescript(f"DROP TABLE IF EXISTS reminder; DROP TABLE IF EXISTS invoice; {STATEMENTS} {row['database']}")
        yield row["messages"][-1]["content"]
        found, expected = set(DATABASE.execute(QUERY)), set(map(tuple, row["expected"]))
        print(json.dumps({"score": len(found & expected) / len(found | expected)}), file=answers, flush=True)
