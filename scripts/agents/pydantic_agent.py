import invoices
from pydantic_ai import Agent

agent = Agent("openai:gpt-5-mini", instructions=invoices.SYSTEM, tools=invoices.TOOLS)
for request in invoices.requests():
    agent.run_sync(request)
