import os

import invoices
from smolagents import OpenAIModel, ToolCallingAgent, tool

model = OpenAIModel("gpt-5-mini", api_base=os.environ["OPENAI_BASE_URL"])
agent = ToolCallingAgent([tool(function) for function in invoices.TOOLS], model, instructions=invoices.SYSTEM)
for request in invoices.requests():
    agent.run(request)
