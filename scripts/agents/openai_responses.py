import invoices
from openai import OpenAI

client = OpenAI()
tools = [{"type": "function", **tool["function"]} for tool in invoices.SCHEMAS]
for request in invoices.requests():
    items, calls = [{"role": "user", "content": request}], True
    while calls:
        answer = client.responses.create(model="gpt-5-mini", instructions=invoices.SYSTEM, input=items, tools=tools)
        calls = [item for item in answer.output if item.type == "function_call"]
        items += [*answer.output, *map(invoices.item, calls)]
