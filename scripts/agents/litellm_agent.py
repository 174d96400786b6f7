import invoices
from litellm import completion

for request in invoices.requests():
    messages = [{"role": "system", "content": invoices.SYSTEM}, {"role": "user", "content": request}]
    calls = True
    while calls:
        answer = completion("openai/gpt-5-mini", messages=messages, tools=invoices.SCHEMAS)
        calls = answer.choices[0].message.tool_calls or []
        messages += [answer.choices[0].message, *map(invoices.message, calls)]
