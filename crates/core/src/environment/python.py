"""Runs code of one conversation, call after call, in the same variables; reads and writes lines of JSON."""
import ast
import builtins
import json
import os
import sys
import tempfile
import traceback

MOST = int(sys.argv[1])
# What code writes goes into a file, whoever writes it; what it reads is empty.
requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
output = tempfile.TemporaryFile()
os.dup2(output.fileno(), 1)
os.dup2(output.fileno(), 2)
variables = {"__name__": "__main__", "__builtins__": builtins}


def write(line):
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(replies, data):]


def run(code):
    try:
        tree = ast.parse(code, "code")
        last = tree.body.pop().value if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "code", "exec"), variables)
        if last is not None:
            value = eval(compile(ast.Expression(last), "code", "eval"), variables)
            if value is not None:
                print(repr(value))
    except SyntaxError as error:
        if error.filename == "code":
            print(*traceback.format_exception_only(error), sep="", end="")
        else:
            traceback.print_exc()
    except BaseException as error:
        # Without this function's own line.
        error.__traceback__ = error.__traceback__.tb_next
        traceback.print_exception(error)


write("ready")
for request in requests:
    run(json.loads(request)["code"])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    size = output.seek(0, os.SEEK_END)
    output.seek(0)
    text = output.read(MOST).decode("utf-8", "replace")
    if size > MOST:
        text += f"\n[the first {MOST} of {size} bytes]"
    output.seek(0)
    output.truncate()
    write(text)
