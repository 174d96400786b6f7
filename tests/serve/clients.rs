//! The clients that people have: OpenAI's for Python, and curl.

use super::*;

const SCRIPT: &str = r#"
import json, sys, openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
found = {"models": [model.id for model in client.models.list()]}
messages = [{"role": "user", "content": "Invoice of Acme, total 12 EUR"}]
whole = client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=30, seed=3, n=2, logprobs=True, temperature=0.7)
found["texts"] = [choice.message.content for choice in whole.choices]
found["usage"] = whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
found["logprobs"] = all(token.logprob <= 0 for token in whole.choices[0].logprobs.content)
streamed, usage = ["", ""], None
for chunk in client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=30, seed=3, n=2, temperature=0.7,
                                            stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        streamed[choice.index] += choice.delta.content or ""
found["streamed"] = streamed
found["same usage"] = usage.total_tokens == whole.usage.total_tokens
text = client.completions.create(model="tiny", prompt="{", max_tokens=5, extra_body={"ignore_eos": True})
found["completion"] = (text.choices[0].finish_reason, text.usage.completion_tokens)
found["errors"] = []
for arguments in [{"logit_bias": {"5": 1}}, {"model": "gpt-4"}, {"n": 1000}]:
    try:
        client.chat.completions.create(**{"model": "tiny", "messages": messages, **arguments})
    except openai.APIStatusError as error:
        found["errors"].append([error.status_code, error.param])

import enum, pydantic, typing

class Kind(str, enum.Enum):
    paid = "paid"
    open = "open"

class Line(pydantic.BaseModel):
    count: typing.Literal[1, 2, 3]
    kind: Kind

class Invoice(pydantic.BaseModel):
    lines: list[Line] = pydantic.Field(min_length=1, max_length=2)
    late: bool | None

class pay(pydantic.BaseModel):
    """Pays an invoice."""
    number: typing.Literal[17, 18]

few = {"model": "tiny", "messages": messages, "max_completion_tokens": 500, "seed": 1}
parsed = client.chat.completions.parse(**few, n=4, response_format=Invoice)
found["parsed"] = [isinstance(choice.message.parsed, Invoice) for choice in parsed.choices]
with client.chat.completions.stream(**few, response_format=Invoice) as stream:
    deltas = sum(event.type == "content.delta" for event in stream)
    found["streamed parse"] = deltas > 3 and isinstance(stream.get_final_completion().choices[0].message.parsed, Invoice)
tools = [openai.pydantic_function_tool(pay)]
for choice in ["required", {"type": "function", "function": {"name": "pay"}}]:
    calls = client.chat.completions.parse(**few, tools=tools, tool_choice=choice, parallel_tool_calls=False).choices[0].message.tool_calls
    found.setdefault("calls", []).append([isinstance(call.function.parsed_arguments, pay) for call in calls[:1]])
with client.chat.completions.stream(**few, tools=tools, tool_choice="required", parallel_tool_calls=False) as stream:
    events = [event.type for event in stream]
    call = stream.get_final_completion().choices[0].message.tool_calls[0].function
    found["streamed call"] = [call.name, isinstance(call.parsed_arguments, pay), "tool_calls.function.arguments.done" in events,
                              events.count("tool_calls.function.arguments.delta") > 2]
for limit in range(16, 80):
    try:
        client.chat.completions.parse(**{**few, "max_completion_tokens": limit}, tools=tools, tool_choice="required")
    except openai.LengthFinishReasonError as error:
        calls = error.completion.choices[0].message.tool_calls or []
        if calls:
            found["broken call"] = [calls[0].function.name, calls[0].function.arguments[:1], calls[0].function.arguments[-1:]]
            break
try:
    client.chat.completions.create(**few, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})
except openai.BadRequestError as error:
    found["errors"].append([error.status_code, error.param])
few = {"model": "tiny", "input": messages, "max_output_tokens": 500, "temperature": 0}
whole = client.responses.create(**few)
with client.responses.stream(**few) as stream:
    deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    found["response"] = [whole.output_text == deltas == stream.get_final_response().output_text, whole.status, len(deltas) > 5]
parsed = client.responses.parse(**few, text_format=Invoice)
found["parsed response"] = isinstance(parsed.output_parsed, Invoice)
tools = [openai.pydantic_function_tool(pay)["function"] | {"type": "function"}]
with client.responses.stream(**few, tools=tools, tool_choice="required", parallel_tool_calls=False) as stream:
    kinds = {event.type for event in stream}
    call = next(item for item in stream.get_final_response().output if item.type == "function_call")
found["response call"] = [call.name, json.loads(call.arguments)["number"] in (17, 18), "response.function_call_arguments.done" in kinds]
back = client.responses.create(**{**few, "input": messages + [call, {"type": "function_call_output", "call_id": call.call_id, "output": "paid"}]})
found["response back"] = back.usage.input_tokens > whole.usage.input_tokens
try:
    client.responses.create(**few, previous_response_id=whole.id)
except openai.BadRequestError as error:
    found["errors"].append([error.status_code, error.param])
print(json.dumps(found))
"#;

#[test]
#[ignore = "with OpenAI's client: .ci/run"]
fn a_client_with_openai_s_own_code_is_served() {
    let server = Server::start(&["tiny"]);
    let mut command = Command::new(crate::program::peer("OPENAI_PYTHON"));
    let output = command
        .args(["-c", SCRIPT, &format!("http://{}/v1", server.address)])
        .output()
        .unwrap();
    let found = crate::program::json(&output);
    assert_eq!(
        (&found["models"], &found["texts"]),
        (&json!(["tiny"]), &found["streamed"]),
        "{found}"
    );
    for key in ["usage", "same usage", "logprobs"] {
        assert_eq!(found[key], true, "{key}: {found}");
    }
    assert_eq!(found["completion"], json!(["length", 5]));
    assert_eq!(
        found["errors"],
        json!([
            [400, "logit_bias"],
            [404, "model"],
            [400, "n"],
            [400, "response_format"],
            [400, "previous_response_id"]
        ])
    );
    assert_eq!(
        found["response"],
        json!([true, found["response"][1], true]),
        "{found}"
    );
    assert_eq!(
        (&found["parsed response"], &found["response back"]),
        (&json!(true), &json!(true)),
        "{found}"
    );
    assert_eq!(
        found["response call"],
        json!(["pay", true, true]),
        "{found}"
    );
    assert_eq!(found["parsed"], json!([true, true, true, true]), "{found}");
    assert_eq!(
        (&found["streamed parse"], &found["calls"]),
        (&json!(true), &json!([[true], [true]])),
        "{found}"
    );
    assert_eq!(
        found["streamed call"],
        json!(["pay", true, true, true]),
        "{found}"
    );
    assert_eq!(
        (&found["broken call"][0], &found["broken call"][1]),
        (&json!("pay"), &json!("{")),
        "{found}"
    );
    assert_ne!(found["broken call"][2], "}", "{found}");
}

#[test]
#[cfg_attr(not(has_curl), ignore = "curl is not installed")]
fn curl_is_served() {
    let server = Server::start(&["tiny"]);
    let body = chat(json!({"stream": true, "seed": 1})).to_string();
    let curl = |arguments: &[&str]| {
        let url = format!("http://{}{CHAT}", server.address);
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--no-buffer",
            "--noproxy",
            "*",
            "-H",
            "Content-Type: application/json",
        ]);
        crate::program::stdout(&command.args(arguments).arg(url).output().unwrap())
    };
    let text = curl(&["-d", &body]);
    assert!(
        text.starts_with("data: {") && text.trim_end().ends_with("data: [DONE]"),
        "{text}"
    );
    // A large body is announced first, and sent when it is wanted.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.json");
    std::fs::write(
        &file,
        chat(json!({"messages": [{"role": "user", "content": "x".repeat(10 << 20)}]})).to_string(),
    )
    .unwrap();
    assert_eq!(
        error_of(&curl(&["-d", &format!("@{}", file.display())]))["code"],
        "request_too_large"
    );
}
