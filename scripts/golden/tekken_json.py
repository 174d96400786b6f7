#!/usr/bin/env python3
"""The start of Mistral's vocabulary as `tekken.json` of several versions, the token ids that mistral-common gives texts and
conversations by it, and the chat templates that it writes for them: tests/parity/tekken-json.json.

    python3 scripts/golden/tekken_json.py
    python3 scripts/golden/tekken_json.py TEKKEN.json OUT.json   (texts and ids of a whole vocabulary, to compare by hand)

Needs mistral-common, whose data (Apache-2.0) has the vocabulary; no network.
"""

import json
import pathlib
import sys
import tempfile

import mistral_common
from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

VOCABULARY, SPECIAL = 600, 40
TEXTS = [
    "1234567890 3.14 1,000,000 2024-05-17T12:30:00Z ½ ٣٤٥ １２３ Ⅷ",
    "  two  three   four\ttab\n\n\n  \r\n\t x \u00a0y\u3000z \n",
    "emoji 🦀🎉 👩‍👩‍👧‍👦 🇩🇪 ❤️‍🔥",
    "中文分词测试，日本語のテキスト、한국어 문장입니다。العربية עברית हिन्दी e\u0301cole",
    "fn main() { let x: Vec<_> = (0..10).map(|i| i*i).collect(); // sum\n    println!(\"{x:?}\\n\"); }",
    "camelCaseWord HTTPServer iPhone McDonald's don't I'LL the there therefore information",
    "Größe STRASSE naïve café ÉCOLE Привет МОСКВА ǅ",
    '{"vendor": "Acme", "total": [12.50, -3], "note": null}',
    "",
    " ",
    "\n",
]
USER = {"role": "user", "content": "What is 17 times 23? Answer as JSON."}
SYSTEM = {"role": "system", "content": "You answer in JSON."}
THOUGHT = {"type": "thinking", "thinking": "17 * 23 = 391", "closed": True}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
    },
}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def special_tokens(version):
    """As published: up to version 7 the file has none, then the list of version 7 and what later versions add."""
    if version == "v7":
        return None
    names = [token["token_str"] for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names += [f"<SPECIAL_{rank}>" for rank in range(len(names), SPECIAL)]
    names[32:34] = [SpecialTokens.args.value, SpecialTokens.call_id.value]
    if version == "v13":
        names[34:36] = [SpecialTokens.begin_think.value, SpecialTokens.end_think.value]
    return [{"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)]


def conversations(version):
    answer = {"role": "assistant", "content": '{"product": 391}'}
    asked = [
        ([USER], None),
        ([SYSTEM, USER], None),
        ([SYSTEM, USER, answer, {"role": "user", "content": "And 2 times 3?"}], None),
        ([SYSTEM, USER], [TOOL]),
        (
            [
                USER,
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": CALL["id"], "name": "add", "content": "1"},
            ],
            [TOOL],
        ),
    ]
    if version == "v13":
        thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "391"}]}
        asked.append(([USER, thought, {"role": "user", "content": "And 2 times 3?"}], None))
    return asked


def texts(path):
    tokenizer = Tekkenizer.from_file(path)
    return [{"text": text, "ids": tokenizer.encode(text, bos=False, eos=False)} for text in TEXTS]


if len(sys.argv) > 1:
    pathlib.Path(sys.argv[2]).write_text(json.dumps(texts(sys.argv[1])))
    sys.exit()

data = pathlib.Path(mistral_common.__file__).parent / "data/tekken_240911.json"
whole = json.loads(data.read_text())
vocabulary, versions = whole["vocab"][:VOCABULARY], []
for version in ["v7", "v11", "v13"]:
    config = whole["config"] | {
        "version": version,
        "num_vocab_tokens": VOCABULARY,
        "default_num_special_tokens": SPECIAL,
        "default_vocab_size": VOCABULARY + SPECIAL - 7,
    }
    file = {"config": config} | ({"special_tokens": special_tokens(version)} if special_tokens(version) else {})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tekken.json"
        path.write_text(json.dumps(file | {"vocab": vocabulary}))
        template = convert_tokenizer_to_chat_template(path, plain_thinking_support=False)
        tokenizer = MistralTokenizer.from_file(str(path))
        cases = []
        for messages, tools in conversations(version):
            request = ChatCompletionRequest.from_openai(messages=messages, tools=tools)
            ids = tokenizer.encode_chat_completion(request).tokens
            cases.append({"messages": messages, "tools": tools, "ids": ids})
        own = {"file": file, "texts": texts(path), "template": template, "conversations": cases}
        versions.append({"version": version} | own)

out = pathlib.Path(__file__).parents[2] / "tests/parity/tekken-json.json"
out.write_text(json.dumps({"vocab": vocabulary, "versions": versions}, ensure_ascii=False) + "\n")
