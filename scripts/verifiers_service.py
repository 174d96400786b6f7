"""The environment of the task, loaded once for all conversations: the EnvServer of verifiers, at the Unix socket
$AGENT_SERVICE. As a module: the harness that asks in this process."""
import asyncio, contextlib, json, logging, os, pathlib, ssl, sys

try:
    import verifiers.v1 as vf
    import openai
    from verifiers.v1.dialects.chat import message_to_wire
    from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp
    from verifiers.v1.runtimes import ProgramResult
    from verifiers.v1.serve.server import EnvServer
    from verifiers.v1.utils.loaders import resolve_env_config
except ImportError as error:
    sys.exit(f"{error}: this task needs verifiers 0.4, `{sys.executable} -m pip install 'verifiers==0.4.*'`")

__all__ = ["ChatHarness"]

# Reading the certificates takes a tenth of a second.
TLS = ssl.create_default_context()


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """The chat loop of the harness `null`, without a process of its own, and so without `uv`."""

    APPENDS_SYSTEM_PROMPT = SUPPORTS_MCP = SUPPORTS_RESUME = True
    EXECUTES_CODE = NEEDS_CONTAINER = False

    async def launch(self, ctx, trace, runtime, endpoint, secret, mcp_urls, data):
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt or [])
        messages.extend(turns)
        try:
            await self.chat(endpoint, secret, mcp_urls, ctx.model, messages)
        except openai.OpenAIError as error:
            # That of a rollout which its environment has ended is expected.
            return ProgramResult(1, "", str(error))
        return ProgramResult(0, "", "")

    async def chat(self, endpoint, secret, mcp_urls, model, messages):
        async with contextlib.AsyncExitStack() as stack:
            http = openai.DefaultAsyncHttpxClient(verify=TLS, timeout=None)
            client = openai.AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=0, timeout=None, http_client=http)
            await stack.enter_async_context(client)
            servers = {name: {"url": url, "timeout": self.config.tool_timeout} for name, url in mcp_urls.items()}
            tools, owners, servers = await connect_mcp({"mcpServers": servers}, stack)
            offered = {"tools": tools} if tools else {}
            while True:
                answer = await client.chat.completions.create(model=model, messages=messages, **offered)
                message = answer.choices[0].message
                messages.append(message.model_dump(exclude_none=True))
                if not message.tool_calls:
                    return
                for call in message.tool_calls:
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": await result(servers, owners, call.function)})


async def result(servers, owners, function):
    """What a call returns, or what is wrong with it."""
    if function.name not in owners:
        return f"error: unknown tool {function.name!r}"
    try:
        return await call_mcp(servers, owners, function.name, json.loads(function.arguments or "{}"))
    except Exception as error:
        return f"error: {error}"


class Service(EnvServer):
    async def _run(self, request, client_id, request_id):
        # The client of an episode finds its key in a variable, and programs that verifiers starts do not get one of this name.
        variable = f"API_KEY_{request_id.decode()}"
        os.environ[variable] = request.client.headers.pop("Authorization", "").removeprefix("Bearer ")
        request.client.api_key_var = variable
        try:
            return await super()._run(request, client_id, request_id)
        finally:
            del os.environ[variable]


def main():
    logging.disable(logging.WARNING)  # the agent of an episode says what failed
    here = pathlib.Path(__file__).parent
    os.environ["PYTHONPATH"] = str(here)  # tools of a taskset that is a file of the task run in processes of their own
    config = json.loads((here / "environment.json").read_text(encoding="utf-8"))
    try:
        service = Service(resolve_env_config(config), "ipc://" + os.environ["AGENT_SERVICE"])
    except Exception as error:
        sys.exit(f"the environment of environment.json does not load: {type(error).__name__}: {error}".replace("\n", " "))
    asyncio.run(service.run())


if __name__ == "__main__":
    main()
