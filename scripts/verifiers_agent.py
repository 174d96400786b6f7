"""One episode of the environment: the service of the task runs it, with this conversation's model. Only zmq and msgpack are
imported: a process starts in a tenth of a second."""
import json, os, sys, uuid

import msgpack, zmq

LOWEST, HIGHEST = map(float, sys.argv[1:3])

row = json.loads(sys.stdin.readline())
if "task" not in row:
    sys.exit("the row has no `task`, the data of a task of verifiers: make the rows with scripts/verifiers-task.py")
socket = zmq.Context().socket(zmq.DEALER)
socket.setsockopt(zmq.RECONNECT_IVL, 50)  # the service binds once the environment is loaded
socket.connect("ipc://" + os.environ["AGENT_SERVICE"])
key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
client = {"type": "eval", "base_url": os.environ["OPENAI_BASE_URL"], "api_key_var": "NONE", "headers": key}
request = {"task_data": row["task"], "client": client, "model": os.environ["OPENAI_MODEL"], "sampling": {}}
socket.send_multipart([uuid.uuid4().hex.encode(), b"run", msgpack.packb(request)])

# Each trace of the episode comes in pieces; what counts here is what was set last, and all errors.
traces = {}
while True:
    _, kind, data = socket.recv_multipart()
    message = msgpack.unpackb(data, strict_map_key=False)
    if kind != b"delta":
        break
    if message.get("discard"):
        traces.pop(message["trace"], None)
        continue
    trace = traces.setdefault(message["trace"], {"errors": []})
    trace.update(message.get("set", {}))
    trace["errors"] += message.get("errors", [])

if not message["success"]:
    sys.exit(f"the environment refuses the task: {message['error']}".replace("\n", " "))
if not message["head"]["ok"]:
    errors = [error for failed in [message["head"], *traces.values()] for error in failed["errors"]]
    sys.exit("the episode failed: " + "; ".join(f"{error['type']}: {error['message']}" for error in errors).replace("\n", " "))
rewards, metrics = {}, {}
for trace in traces.values():
    for name, found in trace["rewards"].items():
        # `None`: a reward that was not computed counts nothing, as in verifiers' own sum.
        rewards[name] = rewards.get(name, 0) + (found["score"] * found["weight"] if found else 0)
    metrics.update({name: value for name, value in trace["metrics"].items() if isinstance(value, (int, float))})
reward = sum(rewards.values())
if not LOWEST <= reward <= HIGHEST:
    sys.exit(f"the reward {reward} is not from {LOWEST} to {HIGHEST}: change the two numbers of `run` in task.toml")
score = (reward - LOWEST) / (HIGHEST - LOWEST)
print(json.dumps({"score": score, "metrics": {**metrics, **rewards, "reward": reward}}))
