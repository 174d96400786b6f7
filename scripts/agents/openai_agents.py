import invoices
from agents import Agent, Runner, function_tool

tools = [function_tool(tool) for tool in invoices.TOOLS]
agent = Agent(name="clerk", instructions=invoices.SYSTEM, tools=tools)
for request in invoices.requests():
    Runner.run_sync(agent, request)
