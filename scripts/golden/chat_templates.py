#!/usr/bin/env python3
"""Prompts as transformers' apply_chat_template renders them.

    python3 scripts/golden/chat_templates.py OUTDIR     (writes OUTDIR/chat_templates.json and prompt_ids.json; ours came from OUTDIR = tests/parity)

Each case of chat_templates.json holds the template, its special tokens, messages, tools, `enable_thinking` (null: not given) and what came out: `expected`,
or `refused` where the template raises. Each of prompt_ids.json holds a template and prompts: the messages of a row, `sent` where a client of another server
sends others, `enable_thinking`, and the token ids with the tokenizer of the embedded models. Needs transformers (written with 5.24); no torch, no network.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

# The template of tokenizers that this project trains (crates/core/src/text/train_bpe.rs); a test holds the two equal.
OURS = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

# What the import of a Gemma file without a template writes.
GEMMA = (pathlib.Path(__file__).parents[2] / "crates/engine/src/checkpoint/gemma_turns.jinja").read_text()

# What an export writes before a template that does not support tools.
TOOLS_AS_TEXT = (pathlib.Path(__file__).parents[2] / "crates/core/src/text/tools_as_text.jinja").read_text()

# In the manner of Qwen3: tools as JSON lines, a namespace found by walking backwards, reasoning cut out of earlier answers, tool calls and replies.
REASONING = """\
{%- set first = messages[0] %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if first.role == 'system' %}
        {{- first.content + '\\n\\n' }}
    {%- endif %}
    {{- 'You may call these functions, one JSON object a line:\\n<functions>' }}
    {%- for tool in tools %}
        {{- '\\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</functions><|im_end|>\\n' }}
{%- elif first.role == 'system' %}
    {{- '<|im_start|>system\\n' + first.content + '<|im_end|>\\n' }}
{%- endif %}
{%- set seen = namespace(searching=true, question=messages | length - 1) %}
{%- for message in messages[::-1] %}
    {%- set position = messages | length - 1 - loop.index0 %}
    {%- if seen.searching and message.role == 'user' and message.content is string and not (message.content.startswith('<reply>') and message.content.endswith('</reply>')) %}
        {%- set seen.searching = false %}
        {%- set seen.question = position %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning = '' %}
        {%- if message.reasoning is defined and message.reasoning is not none %}
            {%- set reasoning = message.reasoning %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > seen.question and (loop.last or reasoning) %}
            {{- '<think>\\n' + reasoning.strip() + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}
                {{- '\\n' }}
            {%- endif %}
            {%- set call = call.function if call.function else call %}
            {{- '<call>{"name": "' ~ call.name ~ '", "arguments": ' }}
            {%- if call.arguments is string %}
                {{- call.arguments }}
            {%- else %}
                {{- call.arguments | tojson }}
            {%- endif %}
            {{- '}</call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<reply>\\n' + content + '\\n</reply>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# In the manner of older instruct models: bos_token, alternating roles, a refusal, block tags on lines of their own, a macro, defaults.
ALTERNATING = """\
{% macro turn(role, text) %}
[{{ role | upper }}] {{ text | trim }}
{% endmacro %}
{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{% set system, rest = messages[0]['content'], messages[1:] %}
<<{{ system }}>>
{% else %}
  {% set system, rest = 'none', messages %}
{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate, starting with user') }}
    {% endif %}
    {% if loop.index is divisibleby 2 %}
{{ turn('reply', message.content) }}{{ eos_token }}
    {% else %}
{{ turn('ask', message.content) }}
    {% endif %}
{% endfor %}
{{ absent | default('end') }}{{ ' of ' + rest | length | string }}{# a comment #}
{% if add_generation_prompt %}[REPLY]{% endif %}
"""

# What templates do with values: printing, JSON, slices, filters, dictionaries, loops with conditions.
VALUES = """\
{%- set data = {'b': [1, 2.5, true, none], 'a': {'é': '<&>"', 'n': 1e20}} -%}
{{ data | tojson }}
{{ data | tojson(indent=2) }}
{{ data | tojson(sort_keys=true, separators=(',', ':')) }}
{{ data.a | tojson(ensure_ascii=true) }}
{{ none }} {{ true }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 5 }} {{ -7 % 3 }} {{ 1e-7 }}
{{ messages[-1].content[:4] }}|{{ messages[0]['content'][::-1] }}|{{ messages | map(attribute='role') | join('+') }}
{% for key, value in data.items() %}{{ key }}={{ value | length }}{{ ';' if not loop.last }}{% endfor %}

{% for message in messages if message.role != 'system' -%}
  {{ loop.index }}/{{ loop.length }} {{ message.content.split(' ')[0] | capitalize }} {{ loop.cycle('odd', 'even') }}
{% endfor %}
{%- for number in range(5) %}{% if number == 1 %}{% continue %}{% endif %}{% if number == 4 %}{% break %}{% endif %}{{ number }}{% endfor %}

{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ 'a,b,,c'.split(',') | length }} {{ 'x' in 'xyz' }} {{ 'z' not in ['x'] }}
{{ ' Ab '.strip().lower() }}{{ 'ab'.upper() }}{{ 'a-b'.replace('-', '+') }}{{ 'title case'.title() }}{{ '{}-{}'.format(1, 'b') }}{{ 'n: %s' % 'v' if false else '' }}
{{ messages[0].get('name', 'nobody') }} {{ messages[0].name is defined }} {{ messages[0].content is string }} {{ data is mapping }} {{ data.b is iterable }}
{% generation %}{{ ['x', 'y'] | last }}{% endgeneration %}{{ [3, 1, 2] | sort | join }}{{ (['q'] + ['r']) | tojson }}
{%- set counter = namespace(total=0) %}{% for message in messages %}{% set counter.total = counter.total + message.content | length %}{% endfor %} {{ counter.total }}"""

# Methods, slices, tests and filters that published templates call, and a few more of Python's.
METHODS = """\
{{ 'a b  c'.split() }}{{ ' a b '.split(' ') }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.split(',', maxsplit=1) }}{{ ' a b  c '.split(none, 1) }}
{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a  b c '.rsplit(none, 1) }}{{ 'a b'.rsplit() }}{{ 'a,b'.partition(',') }}{{ 'a'.partition(',') }}{{ 'a,b,c'.rpartition(',') }}
{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('bc') }}{{ 'abc'.removeprefix('x') }}{{ 'äbc'.index('c') }}{{ "it's a-b 3x".title() }}
{{ 'abcd'[3:0:-1] }}{{ 'abcd'[::-2] }}{{ 'äbcd'[1::2] }}{{ 'abcd'[-2::-1] }}{{ ''[::-1] }}{{ [1, 2, 3, 4][3:0:-1] }}{{ [][::-1] | list }}
{{ [1, 2, 3][9:-9:-1] }}{{ (1, 2, 3)[::-1] }}{{ [[1, 2][::-1][0], {'a': 3}['a']][::-1] }}{{ messages[1:][::-1] | length }}{{ messages[:0][::-1] }}
{% for value in [none, nothing, 'a', [1], (1,), {'a': 1}, 1, 1.5, true] -%}
{{ value is iterable }}{{ value is sequence }}{{ value is mapping }}{{ value is string }}{{ value is number }};
{%- endfor %}
{{ nothing | length }}{{ [] | count }}{{ '' | default('d', boolean=true) }}{{ none | default('d') }}{{ nothing | d('e') }}{{ nothing | default(default_value='f') }}
{{ 'aaa' | replace('a', 'b', 2) }}{{ 'aaa'.replace('a', 'b', 1) }}{{ 1.5 | replace('.', ',') }}
[{{ '{\\n' | indent(4, first=true) }}][{{ 'a\\n\\nb\\n' | indent }}][{{ 'a\\n\\nb' | indent(2, blank=true) }}][{{ 'a\\r\\nb' | indent('> ', true) }}][{{ '' | indent(2) }}]
{%generation%}x{%  endgeneration  %}{%- generation %} y {% endgeneration -%}
{% for message in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ loop.nextitem.role if loop.nextitem is defined }};{% endfor %}

{% for message in messages %}{{ message.content is defined }} {{ message.reasoning_content }} {{ message.thinking }};{% endfor %}"""

# What Python prints for numbers, texts, lists and mappings, alone, joined and within each other; lines end as on Windows and as on old Macs.
PRINTING = """\
{% for m in messages %}{{ m.x }} {{ m.x | string }} {{ m.x ~ '' }} {{ '' ~ m.x }} {{ [m.x] }} {{ {'k': m.x} }} {{ [m.x, 'a'] | join('+') }} {{ [m.x] ~ 1e-7 }}\r
{{ m.x | tojson }} {{ m.x }}{{ 'n: ' ~ m.x if m.x else 'none: ' ~ [m.x] }} {{ ('a' ~ m.x) | upper }} {{ m['x'] ~ -1 ~ 7 // 2 }}\r
{{ [m.content] }} {{ m }} {{ [[m.content, (m.role,)]] ~ m.content }} {{ m.x is number ~ 'b' }} {{ 1e-5 ~ 'a' ~ 1e16 }} {{ m | length ~ m.items() | list | length }}\r{% endfor %}
{{- 'a\r\nb\rc' }}|{{ none ~ nothing ~ true }}|{{ [none, nothing is defined] }}|{{ (1, 2) ~ () ~ (3,) }}|{{ {1: 2, none: 'x', 0.00001: 3} }}
{% set x = 1.5e-5 ~ '%' %}{{ x }}{% if 'a' ~ 1e16 == 'a1e+16' and not ('b' ~ 1e-9) in 'c' %} equal{% endif %}{{ {'a' ~ 1e-5: 'b' ~ [1e-5]}['a1e-05'] }}\r
"""
STRANGE = "\u00a0\u200b\u2028\u00ad\U000e0001\ue000\uff00a\x7f\x85\u0378\u0301e\u0301'\u00e9\ud7ff\U0001f600\t\n\\\x1b"

# SmolLM2's, from its GGUF file (Apache-2.0): a system prompt of its own where there is none.
SMOLLM2 = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# In the manner of Qwen2.5: the same, and tools.
DEFAULT_SYSTEM = """\
{%- set own = messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + (messages[0].content if own else 'You are a helpful assistant.') }}
{%- for tool in tools or [] %}
    {{- '\\n' + tool | tojson }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- for message in (messages[1:] if own else messages) %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# In the manner of Llama 3: what begins a prompt, contents without space around them.
HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# Reads the switch for reasoning in the system text, and has no other.
SOFT_SWITCH = """\
{%- set quiet = messages[0].role == 'system' and '/no_think' in messages[0].content %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if quiet %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

SYSTEM = {"role": "system", "content": "Answer with JSON only."}
USER = {"role": "user", "content": "Invoice 7: Grüße & <b>42,00 €</b> \"net\"\n\n  due 'now' "}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather in a place <now>",
        "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "City & country, e.g. Zürich"}}, "required": ["place"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}
CALLS = [
    SYSTEM,
    {"role": "user", "content": "What is it like in Zürich and when?"},
    {
        "role": "assistant",
        "content": "<think>\nTwo calls.\n</think>\n\nLet me look.",
        "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"place": "Zürich", "days": 1, "exact": True, "unit": None}}},
            {"name": "clock", "arguments": "{}"},
        ],
    },
    {"role": "tool", "content": '{"sky": "clear"}'},
    {"role": "tool", "content": "14:05"},
]
LONG = [
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nOne."},
    {"role": "user", "content": "<reply>not a question</reply>"},
    {"role": "assistant", "content": "Two.", "reasoning": "  kept  "},
]

QWEN_TOKENS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
PLAIN_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

GEMMA_TOKENS = {"bos_token": "<bos>", "eos_token": "<end_of_turn>"}

# name, template, special tokens, messages, tools, enable_thinking
CASES = [
    ("ours, thinking off", OURS, QWEN_TOKENS, [SYSTEM, USER], None, False),
    ("ours, thinking on", OURS, QWEN_TOKENS, [SYSTEM, USER], None, True),
    ("ours, switch not given", OURS, QWEN_TOKENS, [USER], None, None),
    ("ours, several turns", OURS, QWEN_TOKENS, [SYSTEM, USER, {"role": "assistant", "content": "{}"}, USER], None, False),
    ("reasoning, one question", REASONING, QWEN_TOKENS, [USER], None, False),
    ("reasoning, system and question", REASONING, QWEN_TOKENS, [SYSTEM, USER], None, True),
    ("reasoning, switch not given", REASONING, QWEN_TOKENS, [SYSTEM, USER, {"role": "system", "content": "Later."}, USER], None, None),
    ("reasoning, earlier thoughts", REASONING, QWEN_TOKENS, LONG, None, False),
    ("reasoning, tools", REASONING, QWEN_TOKENS, [SYSTEM, USER], [WEATHER, CLOCK], False),
    ("reasoning, tools without system", REASONING, QWEN_TOKENS, [USER], [WEATHER], True),
    ("reasoning, calls and replies", REASONING, QWEN_TOKENS, CALLS, [WEATHER, CLOCK], False),
    ("alternating, system", ALTERNATING, PLAIN_TOKENS, [SYSTEM, USER], None, None),
    ("alternating, three turns", ALTERNATING, PLAIN_TOKENS, [USER, {"role": "assistant", "content": " ok "}, USER], None, False),
    ("alternating, refused", ALTERNATING, PLAIN_TOKENS, [USER, USER], None, None),
    ("gemma, system", GEMMA, GEMMA_TOKENS, [SYSTEM, USER], None, False),
    ("gemma, three turns", GEMMA, GEMMA_TOKENS, [USER, {"role": "assistant", "content": " ok "}, USER], None, True),
    ("gemma, refused", GEMMA, GEMMA_TOKENS, [USER, USER], None, None),
    ("SmolLM2 with tools as text", TOOLS_AS_TEXT + SMOLLM2, QWEN_TOKENS, [USER], [WEATHER, CLOCK], None),
    ("SmolLM2 with tools as text, calls and replies", TOOLS_AS_TEXT + SMOLLM2, QWEN_TOKENS, [*CALLS, {"role": "assistant", "content": "Clear."}, USER], [WEATHER], None),
    ("SmolLM2 with tools as text, without tools", TOOLS_AS_TEXT + SMOLLM2, QWEN_TOKENS, CALLS, None, None),
    ("tools as text before ours", TOOLS_AS_TEXT + OURS, QWEN_TOKENS, CALLS, [CLOCK], False),
    ("methods", METHODS, PLAIN_TOKENS, [SYSTEM, USER, {"role": "assistant", "content": None, "reasoning": "why", "tool_calls": None}, USER], None, None),
    (
        "printing",
        PRINTING,
        PLAIN_TOKENS,
        [
            {"role": "user", "content": STRANGE, "x": 1e-05},
            {"content": "it's", "role": "user", "x": 1e16},
            {"role": "user", "content": '"it\'s"', "x": 123456789.0},
            {"x": -1.5e-300, "role": "user", "content": "\u00a0"},
            {"role": "user", "content": "", "x": [0.1, {"a": [1e-05, None, True, "\u00a0"]}]},
        ],
        None,
        None,
    ),
    ("values", VALUES, PLAIN_TOKENS, [SYSTEM, USER, {"role": "user", "content": "second question", "name": "x"}], None, None),
]

# Of the tokens that the embedded models have.
OUR_TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
TEMPLATES = {
    "ours": OURS,
    "reasoning, as Qwen3": REASONING,
    "alternating": ALTERNATING,
    "SmolLM2": SMOLLM2,
    "default system, as Qwen2.5": DEFAULT_SYSTEM,
    "headers, as Llama 3": HEADERS,
    "soft switch": SOFT_SWITCH,
}
ANSWER = {"role": "assistant", "content": '{"total": "42,00"}'}
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ANSWER, USER], [SYSTEM, USER, ANSWER, USER]]


def sent(template, messages, enable_thinking):
    """What a client sends: the soft switch is its own to write."""
    if template != SOFT_SWITCH or enable_thinking:
        return messages
    system = {"role": "system", "content": SYSTEM["content"] + " /no_think"} if messages[0] == SYSTEM else {"role": "system", "content": "/no_think"}
    return [system] + [message for message in messages if message != SYSTEM]


def prompt_ids(name):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(root, "sample-data/models/tiny/tokenizer.json"), **OUR_TOKENS)
    prompts = []
    for enable_thinking in [False, True]:
        for messages in CONVERSATIONS:
            turns = sent(TEMPLATES[name], messages, enable_thinking)
            options = {"add_generation_prompt": True, "enable_thinking": enable_thinking, "return_dict": False}
            ids = tokenizer.apply_chat_template(turns, chat_template=TEMPLATES[name], **options)
            prompt = {"messages": messages, "enable_thinking": enable_thinking, "token_ids": ids}
            prompts.append(prompt if turns == messages else {**prompt, "sent": turns})
    return {"name": name, "template": TEMPLATES[name], "special_tokens": OUR_TOKENS, "prompts": prompts}


def tokenizer_with(special_tokens):
    """A tokenizer that exists only to carry special tokens: templates never look at its vocabulary."""
    words = {"a": 0}
    for token in special_tokens.values():
        words.setdefault(token, len(words))
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")), **special_tokens)


def render(template, special_tokens, messages, tools, enable_thinking):
    options = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    tokenizer = tokenizer_with(special_tokens)
    return tokenizer.apply_chat_template(messages, tools=tools, chat_template=template, add_generation_prompt=True, tokenize=False, **options)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = []
    for name, template, special_tokens, messages, tools, enable_thinking in CASES:
        case = {
            "name": name,
            "template": template,
            "special_tokens": special_tokens,
            "messages": messages,
            "tools": tools,
            "enable_thinking": enable_thinking,
        }
        try:
            case["expected"] = render(template, special_tokens, messages, tools, enable_thinking)
        except Exception as error:  # the template's own refusal; its type is jinja2's
            if "alternate" not in str(error):
                raise
            case["refused"] = str(error)
        cases.append(case)
    os.makedirs(sys.argv[1], exist_ok=True)
    made_by = {"made_by": "scripts/golden/chat_templates.py", "transformers": transformers.__version__}
    write("chat_templates.json", {**made_by, "cases": cases}, indent=1)
    write("prompt_ids.json", {**made_by, "cases": [prompt_ids(name) for name in TEMPLATES]}, indent=None)


def write(name, golden, indent):
    path = os.path.join(sys.argv[1], name)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(golden, file, indent=indent, ensure_ascii=False)
        file.write("\n")
    print(f"{path}: {len(golden['cases'])} cases")


if __name__ == "__main__":
    main()
