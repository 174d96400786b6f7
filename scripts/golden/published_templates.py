#!/usr/bin/env python3
"""Prompts of published chat templates, and token ids of published tokenizers, as transformers has them.

    python3 scripts/golden/published_templates.py FOLDER FILE
    GRPO_PUBLISHED_TEMPLATES=FILE cargo test --package grpo-tui-core --lib published -- --ignored

Reads every *.jinja of FOLDER, renders each conversation with each set of options that the template mentions, and writes FILE: what came out, or nothing where the
template refuses; and the ids of some texts with the tokenizer of each folder in FOLDER. Both have licences of their own and are not part of the repository:
`scripts/peers published` collects them from packages. Needs transformers (written with 5.24).
"""

import datetime
import json
import pathlib
import sys

from chat_templates import ANSWER, CLOCK, LONG, PLAIN_TOKENS, SYSTEM, USER, WEATHER, tokenizer_with
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

NOW = datetime.datetime(2025, 8, 6, 9, 5, 3)


class FixedTime(datetime.datetime):
    """The clock of `strftime_now`."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def text(role, content, **other):
    return {"role": role, "content": content, **other}


def call(name, arguments, number):
    return {"id": f"abcdefgh{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(name, content, number):
    return text("tool", content, name=name, tool_call_id=f"abcdefgh{number}")


BOOKING = {
    "type": "function",
    "function": {
        "name": "book",
        "description": 'Books a "room".\nTwo lines',
        "parameters": {
            "type": "object",
            "properties": {
                "who": {
                    "type": "object",
                    "description": "guest",
                    "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"], "default": 3}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
                "nights": {"type": "integer", "minimum": 1, "enum": [1, 2, 7]},
                "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "nullable": True},
                "rate": {"anyOf": [{"type": "number"}, {"type": "string"}], "default": 1.0},
                "flag": {"type": "boolean", "default": False},
            },
            "required": ["who", "nights"],
        },
        "return": {"type": "string"},
    },
}
VALUES = {"place": "Zürich <&>", "days": 1, "exact": True, "unit": None, "share": 1.5, "list": [1, {"a": "b"}]}
ASK = text("user", "What is it like in Zürich?")
ONE = [SYSTEM, ASK, text("assistant", "", tool_calls=[call("weather", VALUES, 1)]), result("weather", '{"sky": "clear"}', 1)]
BOTH = [call("weather", {"place": "Bern"}, 1), call("clock", {}, 2)]
TWO = [
    text("user", "Both?"),
    text("assistant", "Let me look.", reasoning_content="Two calls.", tool_calls=BOTH),
    result("weather", "sky", 1),
    result("clock", "14:05", 2),
    text("assistant", "Clear, 14:05."),
    text("user", "Thanks"),
]
REASONED = [SYSTEM, text("user", "First?"), text("assistant", "One.", reasoning_content="  hm\nyes \n"), text("user", "Second?")]
PARTS = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "you"}]

# name, messages, tools
CONVERSATIONS = [
    ("user", [USER], None),
    ("system", [SYSTEM, USER], None),
    ("turns", [SYSTEM, USER, text("assistant", " ok\n"), USER], None),
    ("many turns", [SYSTEM] + [USER, ANSWER] * 6 + [USER], None),
    ("reasoning in the content", [USER, text("assistant", "<think>\nhm\n</think>\n\nOne."), USER], None),
    ("reasoning in the content, a reply", LONG, None),
    ("reasoning", REASONED, None),
    ("reasoning, last turn", REASONED[:3], None),
    ("reasoning as thinking", [USER, text("assistant", "One.", thinking="hm"), USER], None),
    ("reasoning and calls", TWO[:4], [WEATHER, CLOCK]),
    ("tools", [SYSTEM, USER], [WEATHER, CLOCK, BOOKING]),
    ("tools without system", [USER], [BOOKING]),
    ("a call", ONE, [WEATHER]),
    ("a call and an answer", ONE + [ANSWER, USER], [WEATHER, BOOKING]),
    ("two calls", TWO, [WEATHER, CLOCK]),
    ("arguments as text", ONE[:2] + [text("assistant", "", tool_calls=[call("weather", '{"place": "Bern"}', 1)])] + ONE[3:], [WEATHER]),
    ("a call without content", [ASK, {**ONE[2], "content": None}, ONE[3]], [WEATHER]),
    ("a result that is an object", ONE[:3] + [result("weather", {"sky": "clear", "list": [1, 2.0]}, 1)], [WEATHER]),
    ("parts", [text("system", PARTS), text("user", PARTS), text("assistant", PARTS[:1]), text("user", PARTS)], None),
    ("an image", [text("user", [{"type": "image"}, PARTS[0]])], None),
    ("developer", [text("developer", "Be short."), USER], [WEATHER]),
    ("system later", [USER, ANSWER, text("system", "late"), USER], None),
    ("user twice", [USER, USER], None),
    ("assistant first", [ANSWER, USER], None),
    ("unknown role", [text("critic", "a")], None),
    ("empty", [text("user", "")], None),
]
OPTIONS = [
    {},
    {"enable_thinking": True},
    {"enable_thinking": False},
    {"reasoning_effort": "low"},
    {"reasoning_effort": "high", "enable_thinking": True},
    {"preserve_thinking": True},
    {"preserve_thinking": False, "enable_thinking": True},
    {"add_generation_prompt": False},
    {"thinking": True},
    {"date_string": "1 Jan 2020", "model_identity": "You are X.", "builtin_tools": ["browser", "python"], "add_vision_id": True},
    {"clear_thinking": False, "keep_all_reasoning": True, "truncate_history_thinking": False},
]


def cases(template, tokenizer):
    for name, messages, tools in CONVERSATIONS:
        for options in OPTIONS:
            if options and not any(option in template for option in options):
                continue
            case = {"name": name, "messages": messages, "tools": tools, "options": options}
            rendering = {"chat_template": template, "tools": tools, "tokenize": False, "add_generation_prompt": True, **options}
            try:
                case["expected"] = tokenizer.apply_chat_template(messages, **rendering)
            except Exception as error:  # of jinja2 or of Python, whatever the template causes
                case["refused"] = str(error)
            yield case


TEXTS = [
    "",
    " leading and trailing  ",
    "Rechnung Nr. 4711 über 1.234,50 € – fällig am 3. März",
    '{"vendor": "Acme", "total": 1234.5, "paid": true}\n',
    "def f(x):\n\treturn [x ** 2 for _ in range(10)]\r\n",
    "東京タワー 고양이 кошка שלום مرحبا",
    "e\u0301 \u00e9 \ufb01 \u2126 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u0000 \ufffd",
    "1234567 12 345 6789012345",
    "don't WON'T I'll   \n\n\n  x",
    "<|im_start|>user\nhi<|im_end|><s></s><|endoftext|><think>",
]


def tokenizers(folder):
    for path in sorted(folder.glob("*/tokenizer.json")):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent)
        texts = [[text, tokenizer.encode(text, add_special_tokens=False)] for text in TEXTS]
        yield {"folder": str(path.parent.resolve()), "texts": texts}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    chat_template_utils.datetime = FixedTime
    tokenizer = tokenizer_with(PLAIN_TOKENS)
    templates = []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        # With the line ends that it has.
        template = path.read_bytes().decode("utf-8")
        templates.append({"file": path.name, "template": template, "cases": list(cases(template, tokenizer))})
    tokens = list(tokenizers(pathlib.Path(sys.argv[1])))
    golden = {"special_tokens": PLAIN_TOKENS, "now": NOW.isoformat(), "templates": templates, "tokenizers": tokens}
    pathlib.Path(sys.argv[2]).write_text(json.dumps(golden, ensure_ascii=False), encoding="utf-8")
    every = [case for template in templates for case in template["cases"]]
    print(f"{sys.argv[2]}: {len(templates)} templates, {len(every)} cases, {sum('refused' in case for case in every)} refused; {len(tokens)} tokenizers, {len(TEXTS)} texts each")


if __name__ == "__main__":
    main()
