import invoices
from langchain.agents import create_agent

agent = create_agent("openai:gpt-5-mini", tools=invoices.TOOLS, system_prompt=invoices.SYSTEM)
for request in invoices.requests():
    agent.invoke({"messages": [{"role": "user", "content": request}]})
