import dspy
import invoices

dspy.configure(lm=dspy.LM("openai/gpt-5-mini", cache=False))
agent = dspy.ReAct(dspy.Signature("request -> report", invoices.SYSTEM), tools=invoices.TOOLS)
for request in invoices.requests():
    agent(request=request)
