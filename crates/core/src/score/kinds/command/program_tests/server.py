"""Runs answers in Python for their tests. Reads requests on standard input, one after another, and forks processes for
each, so that nothing is left of one for the next. What an answer should give is not known here: the program that asks
compares. Only tests that are code know it; they run in a process of their own, which calls the answer's over a socket.

A request is a line, `CODE SECONDS OUTPUT KIND:DATA ...`, then the code and the data of each case, of so many bytes:

call  calls a function; data: {"entry": ..., "args": [...]}; reply: {"value": ...}
run   runs a program; data: {"args": [...], "stdin": ...}; reply: {"stdout": ..., "code": ...}
test  runs tests; data: {"tests": CODE, "entry": ..., "before": CODE}; reply: {"passed": true}, {"failed": ...} or, where
      the tests are wrong, {"broken": ...}. What `before` defines, but what the answer is to define, is the tests' own.

Other replies: {"raised": ...}, {"ended": ...}, and {"syntax": ...}, {"late": true}, {"long": true}, {"many": true},
after which the answer's other cases are left out. The last line is `clean`, or `used` from a server that ends, because
its folders have changed, its input is out of step, or it serves one request only.
"""
import ast, builtins, ctypes, gc, inspect, json, opcode, os, select, signal, socket, sys, time, traceback, types, unittest
# Common imports of answers: loaded once.
import bisect, collections, contextlib, datetime, functools, heapq, itertools, math, operator, random, re, statistics, string, typing

PR_SET_DUMPABLE = 4
FOLDERS = ["/tmp", "/tmp/home", "/tmp/shm", "/tmp/work"]
MAX_COMPLAINT = 4096
# Of one answer: more of them keep the cores from others, whose time runs, too.
MAX_PROCESSES = 64
# Numbers of descriptors that a supervisor may have.
MAX_DESCRIPTORS = 64
# Seconds until processes are counted again.
LOOK = 0.1
ANSWERED = ["value", "raised", "syntax", "line", "column"]
PLAIN = (type(None), bool, int, float, str)
# Digits of an integer: more take too long to write and to read.
MAX_DIGITS = 4300
MAX_BITS = int(MAX_DIGITS * 3.321928)
# Exceptions that Python itself or a runner of tests catches: tests get a class of the same name that nobody else knows.
FLOW = {
    name: type(name, (RuntimeError,), {})
    for name in [
        "StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "AssertionError",
        "ExceptionGroup", "BaseExceptionGroup",
    ]
}
# Functions that tests name an exception to.
CATCHING = ["raises", "assertRaises", "assertRaisesRegex", "isinstance", "issubclass", "suppress"]
IS_WARM = sys.argv[1:] == ["warm"]


def read(count):
    parts = []
    while count > 0:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(1)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def header():
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    code, seconds, output, *cases = line.decode().split()
    cases = [case.split(":") for case in cases]
    return int(code), float(seconds), int(output), [(kind, int(data)) for kind, data in cases]


def serve():
    # Other processes of this user may neither read this one's memory nor open its descriptors; nor those of its forks.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        sys.exit("cannot protect this process from answers")
    if IS_WARM and (os.getppid() != 1 or os.uname().nodename != "sandbox"):
        sys.exit("not in a namespace")
    marks = lambda: [os.stat(folder).st_ctime_ns for folder in FOLDERS]
    before = marks() if IS_WARM else None
    os.write(1, b"ready\n")
    gc.collect()
    gc.freeze()
    while True:
        request = header()
        child = os.fork()
        if child == 0:
            supervise(*request)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if IS_WARM:
            # All in this namespace but its first process and this one.
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
                while processes() > 2:
                    time.sleep(0.001)
        is_clean = IS_WARM and marks() == before and status == 0
        os.write(1, b"clean\n" if is_clean else b"used\n")
        if not is_clean:
            return


def supervise(code_bytes, seconds, most, cases):
    """Runs the cases of one answer, in a process that ends with them."""
    code, is_done = read(code_bytes), False
    for kind, data_bytes in cases:
        if is_done:
            read(data_bytes)
            continue
        reply = run_case(kind, code, data_bytes, seconds, most)
        is_done = not {"syntax", "late", "long", "many"}.isdisjoint(reply)
        line = json.dumps(reply).encode() + b"\n"
        while line:
            line = line[os.write(1, line):]


def run_case(kind, code, data_bytes, seconds, most):
    """Runs one case: the answer in a process that is forked before its data is read, and for tests one more."""
    here, there = socket.socketpair()
    pipes = {name: os.pipe() for name in ["stdin", "stdout", "stderr"]}
    answer = os.fork()
    if answer == 0:
        here.close()
        run_answer(kind, code, there, pipes)
        os._exit(0)
    there.close()
    data = read(data_bytes)
    result, tested = here, None
    if kind == "test":
        result, verdict = socket.socketpair()
        tested = os.fork()
        if tested == 0:
            result.close()
            run_tests(json.loads(data), here, verdict, most)
            os._exit(0)
        verdict.close()
        here.close()
        stdin = b""
    else:
        here.settimeout(seconds)
        # It may have ended: it does not parse.
        with contextlib.suppress(OSError):
            here.sendall(b"%d\n" % len(data) + data)
        stdin = json.loads(data).get("stdin", "").encode() if kind == "run" else b""
    for name, (end, other) in pipes.items():
        os.close(end if name == "stdin" else other)
    output = {result.fileno(): b"", pipes["stdout"][0]: b"", pipes["stderr"][0]: b""}
    handle = os.pidfd_open(tested or answer)
    exceeded = collect(handle, pipes["stdin"][1], stdin, output, time.monotonic() + seconds, most)
    said, stdout, complaint = output.values()
    if exceeded:
        reply = {exceeded: True}
    else:
        _, status = os.waitpid(tested or answer, 0)
        code = os.waitstatus_to_exitcode(status)
        reply = read_reply(said, ANSWERED if tested is None else None) or {"ended": code}
        if kind == "run" and "syntax" not in reply:
            reply = {"stdout": stdout.decode(errors="replace"), "code": code}
    reply["stderr"] = complaint[-MAX_COMPLAINT:].decode(errors="replace")
    result.close()
    for end in [handle, pipes["stdout"][0], pipes["stderr"][0]]:
        os.close(end)
    return reply


def whole(text):
    if len(text) > MAX_DIGITS:
        raise OverflowError(f"an integer of more than {MAX_DIGITS} digits")
    return int(text)


READER = json.JSONDecoder(parse_int=whole)


def read_reply(said, known):
    """The line that a process has said; an answer may say anything, of which only `known` is taken."""
    try:
        reply = READER.decode(said.decode())
        return {key: reply[key] for key in known if key in reply} if known else reply
    except OverflowError as error:
        return {"raised": f"it returned {error}"}
    except (ValueError, TypeError, RecursionError):
        return None


def processes():
    try:
        return sum(name.isdecimal() for name in os.listdir("/proc"))
    except OSError:
        return 0


def collect(handle, input_end, stdin, output, until, most):
    """Moves bytes until the process has ended; `late`, `long` or `many` if it takes, writes or starts too much."""
    os.set_blocking(input_end, False)
    poll = select.poll()
    for end in [*output, handle]:
        os.set_blocking(end, False)
        poll.register(end, select.POLLIN)
    if stdin:
        poll.register(input_end, select.POLLOUT)
    else:
        os.close(input_end)
    has_ended = False
    while True:
        left = 0 if has_ended else until - time.monotonic()
        if left < 0:
            return "late"
        found = poll.poll(min(left, LOOK) * 1000)
        if has_ended and not found:
            if stdin:
                os.close(input_end)
            return None
        if IS_WARM and processes() > MAX_PROCESSES:
            return "many"
        for end, _ in found:
            if end == handle:
                has_ended = True
                poll.unregister(handle)
            elif end == input_end:
                try:
                    stdin = stdin[os.write(input_end, stdin[:65536]):]
                except BrokenPipeError:
                    stdin = b""
                if not stdin:
                    poll.unregister(input_end)
                    os.close(input_end)
            else:
                try:
                    part = os.read(end, 1 << 16)
                except ConnectionResetError:
                    part = b""
                output[end] += part
                if not part:
                    poll.unregister(end)
                if sum(map(len, output.values())) > most:
                    return "long"


def say(link, message):
    try:
        link.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(1)


def told(error, file="answer.py"):
    """An error of the answer's, in a line, and where it was raised."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    try:
        text = str(error)[:500]
    except BaseException:
        text = ""
    return {"raised": f"{type(error).__name__}: {text}" if text else type(error).__name__, "line": lines[-1] if lines else 1}


def run_answer(kind, code, link, pipes):
    """In the answer's process: compiles it while nothing of it has run, and closes what is not its own."""
    for number, name in enumerate(pipes):
        os.dup2(pipes[name][number > 0], number)
    if kind != "run":
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
    os.dup2(link.detach(), 3)
    os.closerange(4, MAX_DESCRIPTORS)
    link = socket.socket(fileno=3)
    try:
        program = compile(code, "answer.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        say(link, {"syntax": error.msg, "line": error.lineno or 1, "column": error.offset or 1})
        os._exit(0)
    except (ValueError, RecursionError, MemoryError) as error:
        say(link, {"syntax": str(error) or type(error).__name__, "line": 1, "column": 1})
        os._exit(0)
    module = types.ModuleType("__main__" if kind == "run" else "answer")
    module.__file__ = "answer.py"
    sys.modules[module.__name__] = module
    if kind == "test":
        return serve_answer(program, module, link)
    stream = link.makefile("rb")
    data = json.loads(stream.read(int(stream.readline())))
    stream.close()
    if kind == "run":
        link.close()
        sys.argv = ["answer.py", *data["args"]]
        return run_program(program, module)
    try:
        exec(program, module.__dict__)
        if data["entry"] not in module.__dict__:
            say(link, {"raised": f"there is no function `{data['entry']}`", "line": 1})
            os._exit(0)
        value = module.__dict__[data["entry"]](*data["args"])
    except BaseException as error:
        say(link, told(error))
        os._exit(0)
    try:
        text = json.dumps(value, allow_nan=False)
    except BaseException as error:
        is_long = isinstance(error, ValueError) and "integer string conversion" in str(error)
        why = f"an integer of more than {MAX_DIGITS} digits" if is_long else None
        why = why or f"a value of the type {type(value).__name__}, which is not JSON"
        say(link, {"raised": f"it returned {why}", "line": 1})
        os._exit(0)
    link.sendall(b'{"value": ' + text.encode() + b"}\n")
    os._exit(0)


def run_program(program, module):
    try:
        exec(program, module.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        traceback.print_exception(type(error), error, error.__traceback__.tb_next)
        sys.exit(1)
    sys.exit(0)


class Pack:
    """Values of a message. Each is of exactly one of Python's own types, or an instance of a class of `before`, which
    goes by value, once; another stays where it is, and its number is sent. Tests have no `objects`, and send what `named`
    has by its name. `made` has the instances of the message that is answered: they are sent back, changed or not."""

    def __init__(self, objects, kinds, named=(), made=()):
        self.objects, self.kinds, self.named, self.made = objects, kinds, named, list(made)
        self.numbers = {id(value): number for number, value in enumerate(self.made)}

    def encode(self, value):
        kind = type(value)
        if kind is int and value.bit_length() > MAX_BITS:
            raise ValueError(f"an integer of more than {MAX_DIGITS} digits")
        if kind in PLAIN:
            return value
        if kind in (list, tuple, set, frozenset):
            return {kind.__name__: [self.encode(item) for item in value]}
        if kind is dict:
            return {"dict": [[self.encode(key), self.encode(item)] for key, item in value.items()]}
        if kind is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, Items):
            value = value.remote
        if isinstance(value, Remote):
            return {"object": value._number}
        name = self.kind_of(kind)
        if name and isinstance(value, tuple):
            return {"row": [name, [self.encode(item) for item in value]]}
        if name and hasattr(kind, "__members__"):
            return {"member": [name, value.name]}
        if name and not isinstance(value, (BaseException, dict, list, set, str, int, float)):
            if id(value) not in self.numbers:
                self.numbers[id(value)] = len(self.made)
                self.made.append(value)
            return {"made": self.numbers[id(value)]}
        if self.objects is None:
            for name, known in self.named.items():
                if known is value:
                    return {"named": name}
            raise TypeError(f"tests cannot pass a value of the type {kind.__name__} to an answer")
        self.objects.append(value)
        return {"new": len(self.objects) - 1, "type": kind.__name__}

    def kind_of(self, kind):
        return next((one.__name__ for one in kind.__mro__ if one.__name__ in self.kinds and one.__module__ in MODULES), None)

    def instances(self):
        """Class and fields of each instance; those of fields join them."""
        return [[self.kind_of(type(value)), {name: self.encode(field) for name, field in fields(value)}] for value in self.made]


MODULES = ("before", "answer", "__main__")


def fields(value):
    names = [*getattr(value, "__dict__", {})]
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [(name, getattr(value, name)) for name in names if not name.startswith("__") and hasattr(value, name)]


def made_of(rows, decoding, known=()):
    """The instances of a message; those that are known are changed."""
    kinds, made = decoding["kinds"], list(known)
    for kind, _ in rows[len(made):]:
        made.append(object.__new__(kinds[kind]))
    decoding["made"] = made
    for value, (_, row) in zip(made, rows):
        for name, _ in fields(value):
            if name not in row:
                object.__delattr__(value, name)
        for name, field in row.items():
            # A method is the class's.
            if not callable(getattr(type(value), name, None)):
                object.__setattr__(value, name, decode(field, **decoding))
    return made


def decode(value, link, objects, kinds, made=()):
    if type(value) in PLAIN:
        return value
    (kind, content), *_ = value.items()
    inner = lambda item: decode(item, link, objects, kinds, made)
    if kind in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, kind)(inner(item) for item in content)
    if kind == "dict":
        return {inner(key): inner(item) for key, item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "object":
        return objects[content]
    if kind == "made":
        return made[content]
    if kind == "named":
        return kinds[content]
    if kind == "row":
        return tuple.__new__(kinds[content[0]], [inner(item) for item in content[1]])
    if kind == "member":
        return kinds[content[0]][content[1]]
    name = str(value["type"])
    return (Coroutine if name == "coroutine" else Remote)(link, content, name)


def finish(coroutine):
    import asyncio

    async def result():
        return await coroutine

    return asyncio.run(result())


END = object()
OPERATIONS = {"await": finish, "eq": operator.eq, "iter": iter, "len": len, "str": str, "getitem": operator.getitem}


def serve_answer(program, module, link):
    """Runs the answer, and what its tests ask of its objects."""
    objects, stream = [], link.makefile("rb")
    try:
        exec(program, module.__dict__)
    except BaseException as error:
        say(link, told(error))
        os._exit(0)
    is_known = lambda value: callable(value) or type(value) in PLAIN
    names = {name: value for name, value in list(module.__dict__.items()) if not name.startswith("__") and is_known(value)}
    pack = Pack(objects, ())
    say(link, {"names": {name: pack.encode(value) for name, value in names.items()}})
    for line in stream:
        number, name, arguments, keywords, what, rows, kinds = json.loads(line)
        try:
            target = objects[number]
            decoding = {"link": None, "objects": objects, "kinds": module.__dict__}
            made = made_of(rows, decoding)
            arguments = [decode(value, **decoding) for value in arguments]
            keywords = {key: decode(value, **decoding) for key, value in keywords.items()}
            if what == "get":
                value = getattr(target, name)
            elif what == "call":
                value = target(*arguments, **keywords)
            elif name == "next":
                value = next(target, END)
            else:
                value = OPERATIONS[name](target, *arguments)
            if value is END:
                say(link, {"end": True, "arguments": []})
                continue
            # What is changed in place is sent back.
            pack = Pack(objects, kinds, made=made)
            reply = {"value": pack.encode(value), "arguments": [pack.encode(value) for value in arguments]}
            reply["made"] = pack.instances()
        except BaseException as error:
            reply = {**told(error), "types": [kind.__name__ for kind in type(error).__mro__]}
        say(link, reply)
    os._exit(0)


def brief(value):
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "..."


class Remote:
    """An object of the answer's, in the process of its tests. It is equal to objects of the answer's only, if to any."""

    def __init__(self, link, number, kind):
        self._link, self._number, self._kind = link, number, kind

    def _ask(self, name, *arguments, what="operation", **keywords):
        pack = Pack(None, self._link.kinds, self._link.named)
        given = [pack.encode(value) for value in arguments]
        named = {key: pack.encode(value) for key, value in keywords.items()}
        question = [self._number, name, given, named, what, pack.instances(), [*self._link.kinds]]
        value, after = self._link.ask(question, pack.made)
        for old, new in zip(arguments, after):
            if type(old) in (list, dict, set) and type(new) is type(old) and new != old:
                old.clear()
                old.extend(new) if type(old) is list else old.update(new)
        return value

    def __getattr__(self, name):
        value = self._ask(name, what="get")
        if isinstance(value, Remote):
            value._kind = f"{self._kind}.{name}"
        return value

    def __call__(self, *arguments, **keywords):
        shown = [brief(argument) for argument in arguments] + [f"{name}={brief(keywords[name])}" for name in keywords]
        called = f"{self._kind}({', '.join(shown)})"[:400]
        try:
            value = self._ask("", *arguments, what="call", **keywords)
        except BaseException as error:
            self._link.last = f"{called} " + ("did not return" if isinstance(error, Gone) else f"raised {type(error).__name__}")
            raise
        self._link.last = f"{called} returned {brief(value)}"[:500]
        return value

    def __eq__(self, other):
        return isinstance(other, Remote) and bool(self._ask("eq", other))

    def __bool__(self):
        raise TypeError(f"the answer returned an object of the type {self._kind}")

    def __iter__(self):
        return Items(self._ask("iter"))

    def __next__(self):
        value = self._ask("next")
        if value is END:
            raise FLOW["StopIteration"]
        return value

    def __await__(self):
        return self._ask("await")
        yield

    def __len__(self):
        return self._ask("len")

    def __str__(self):
        return self._ask("str")

    def __getitem__(self, key):
        return self._ask("getitem", key)

    def __repr__(self):
        return f"an object of the type {self._kind}"


class Coroutine(Remote):
    """A coroutine of the answer's, which runs to its end when it is first awaited."""

    __hash__ = object.__hash__

    def __getattr__(self, name):
        raise AttributeError(name)

    def send(self, value):
        raise StopIteration(self._ask("await"))

    def __next__(self):
        return self.send(None)

    def throw(self, *error):
        raise error[-1] if isinstance(error[-1], BaseException) else error[0]

    def close(self):
        pass


class Items:
    """The items of an iterable of the answer's. Only their end is its end: what it raises is not."""

    def __init__(self, remote):
        self.remote = remote

    def __iter__(self):
        return self

    def __next__(self):
        value = self.remote._ask("next")
        if value is END:
            raise StopIteration
        return value


def next_item(iterator, *default):
    """`next` for tests: within `map` or `zip`, the end of one iterator is not the end of another."""
    if isinstance(iterator, Remote):
        iterator = Items(iterator)
    try:
        return next(iterator, *default)
    except StopIteration as error:
        if sys._getframe(1).f_code.co_name == "__next__":
            raise
        raise FLOW["StopIteration"](*error.args) from None


# Of tests. Made once: a copy in their process would write to every page that has one of these objects.
BUILTINS = {**vars(builtins), "next": next_item, **{f"__answer_{name}__": FLOW[name] for name in FLOW}}
FORGED = "its process gave a reply that cannot be read"


class Gone(BaseException):
    """The answer's process has ended, or did not keep to the protocol."""


class Broken(BaseException):
    """The tests are wrong, whatever the answer."""


class Link:
    def __init__(self, connection, most):
        self.connection, self.stream, self.most, self.last = connection, connection.makefile("rb"), most, None
        self.asked, self.gone = 0, None
        # What `before` defines: classes, and all by their names.
        self.kinds, self.named = {}, {}

    def ask(self, question, made):
        self.asked += 1
        try:
            say(self.connection, question)
            reply = self.hear()
            if "raised" in reply:
                raised = self.raised(reply)
            elif "end" in reply:
                return END, []
            else:
                decoding = {"link": self, "objects": None, "kinds": self.kinds}
                made_of(reply["made"], decoding, made)
                return decode(reply["value"], **decoding), [decode(item, **decoding) for item in reply["arguments"]]
        except (Exception, Gone) as error:
            # Tests that catch it fail nevertheless.
            self.gone = self.gone or (
                error if isinstance(error, Gone) else Gone(f"it returned {error}" if isinstance(error, OverflowError) else FORGED)
            )
            raise self.gone from None
        raise raised

    def raised(self, reply):
        text = str(reply["raised"]).partition(": ")[2]
        for name in map(str, reply.get("types", [])):
            if name in FLOW:
                return FLOW[name](text)
            kind = self.kinds.get(name) or getattr(builtins, name, None)
            if isinstance(kind, type) and issubclass(kind, Exception):
                try:
                    return kind(text)
                except TypeError:
                    return kind.__new__(kind, text)
        return RuntimeError(text)

    def hear(self):
        line = self.stream.readline(self.most)
        if not line.endswith(b"\n"):
            raise Gone("it ended" if len(line) < self.most else "it returned too much")
        return READER.decode(line.decode())


def run_tests(data, connection, verdict, most):
    """In the process of the tests: they know what is right, so no object of the answer's is here."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    link = Link(connection, most)
    try:
        said = link.hear()
        # It is the answer's process that speaks.
        if "names" in said:
            reply = passed(data["tests"], data["entry"], data["before"], link, said["names"])
        else:
            reply = {key: said[key] for key in ANSWERED if key in said}
    except BaseException as error:
        text = str(error)
        is_gone = isinstance(error, Gone)
        said = text if is_gone else f"{type(error).__name__}: {text}"
        reply = {"failed": said, "kind": "ended" if is_gone else "exception", "line": 0}
    say(verdict, reply)


class Flow(ast.NodeTransformer):
    """Lets tests that name one of `FLOW` catch the answer's, too."""

    def catching(self, node):
        if isinstance(node, ast.Tuple):
            return ast.copy_location(ast.Tuple([one for item in node.elts for one in self.both(item)], ast.Load()), node)
        both = self.both(node)
        return node if len(both) == 1 else ast.copy_location(ast.Tuple(both, ast.Load()), node)

    def both(self, node):
        if not (isinstance(node, ast.Name) and node.id in FLOW):
            return [node]
        return [node, ast.copy_location(ast.Name(f"__answer_{node.id}__", ast.Load()), node)]

    def visit_ExceptHandler(self, node):
        node.type = node.type and self.catching(node.type)
        return self.generic_visit(node)

    def visit_Call(self, node):
        if called(node) in CATCHING:
            node.args = [self.catching(argument) for argument in node.args]
        return self.generic_visit(node)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def asserts(node):
    """Whether something within can fail on purpose."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Assert, ast.Raise)):
            return True
        if isinstance(inner, ast.Call) and any(word in called(inner).lower() for word in ["assert", "raises", "fail", "exit"]):
            return True
    return False


def parameters(node):
    return [argument.arg for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]


def codes(code):
    """A code object and those within."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from codes(inner)


def is_function(code):
    return code.co_flags & inspect.CO_OPTIMIZED and code.co_name.isidentifier()


def check_call(tests, entry):
    """The call of the function `check`, if there is one and a function for it."""
    found = [code for code in tests.co_consts if isinstance(code, types.CodeType) and code.co_name == "check"]
    if not (found and entry and is_function(found[-1])):
        return None
    check = found[-1]
    if check.co_argcount or check.co_flags & inspect.CO_VARARGS:
        arguments = entry
    else:
        arguments = f"{check.co_varnames[0]}={entry}" if check.co_kwonlyargcount else ""
    return f"check({arguments})"


RAISING = {opcode.opmap[name] for name in ["RAISE_VARARGS", "LOAD_ASSERTION_ERROR"] if name in opcode.opmap}


def can_fail(code):
    """Whether there is an assertion in it, or a call of one."""
    named = (word in name.lower() for name in code.co_names for word in ["assert", "raises", "fail", "exit"])
    return not RAISING.isdisjoint(code.co_code[::2]) or any(named)


def refuse_idle(tree, answers, called_name):
    """Finds tests that nothing calls: they would pass whatever the answer.

    Raises:
        Broken: there is one.
    """
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}

    def look(node, is_collected):
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.ClassDef):
                is_case = inner.name.startswith("Test") or bool(inner.bases)
                look(inner, is_collected and isinstance(node, ast.Module) and is_case)
            elif isinstance(inner, FUNCTIONS):
                name = inner.name
                is_run = name in used or name == called_name or name.startswith("__") or inner.decorator_list
                is_run = is_run or is_collected and isinstance(node, (ast.Module, ast.ClassDef)) and (
                    name.startswith("test") or name.lower().startswith(("setup", "teardown", "asyncsetup", "asyncteardown"))
                )
                own = answers.union(parameters(inner))
                calls = any(isinstance(call, ast.Call) and called(call) in own for call in ast.walk(inner))
                if not is_run and calls and asserts(inner):
                    raise Broken(f"line {inner.lineno}: nothing calls `{name}`: name it `test_{name}`, or call it")
                look(inner, False)
            else:
                look(inner, is_collected)

    look(tree, True)


class FirstFailure(unittest.TestResult):
    """Keeps the first exception."""

    failfast, error = True, None

    def keep(self, error):
        self.error = self.error or error
        self.stop()

    def addError(self, test, error):
        self.keep(error[1])

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error:
            self.keep(error[1])

    def addUnexpectedSuccess(self, test):
        self.keep(AssertionError(f"{test} passes, and should not"))


def run_class(kind):
    """The methods of a class `Test..`, each on an object of its own, as pytest runs them."""
    names = [name for name in dir(kind) if name.startswith("test") and callable(getattr(kind, name))]
    if names and kind.__init__ is not object.__init__:
        raise Broken(f"`{kind.__name__}` has an `__init__`: use `setup_method`")
    call = lambda holder, name, *given: getattr(holder, name, lambda *given: None)(*given)
    if names:
        call(kind, "setup_class")
    for name in names:
        test = kind()
        prepare = getattr(test, "setup_method", None)
        if prepare:
            prepare(*[getattr(test, name)][:len(inspect.signature(prepare).parameters)])
        run_function(f"{kind.__name__}.{name}", getattr(test, name), {})
        finish = getattr(test, "teardown_method", None)
        if finish:
            finish(*[getattr(test, name)][:len(inspect.signature(finish).parameters)])
    if names:
        call(kind, "teardown_class")


def parametrized(function):
    """The arguments of each call that pytest's `parametrize` asks for."""
    calls = [{}]
    for mark in getattr(function, "pytestmark", []):
        if mark.name != "parametrize":
            continue
        names, rows = (*mark.args, *mark.kwargs.values())[:2]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        rows = [getattr(row, "values", row) if not isinstance(row, dict) else row for row in rows]
        rows = [row if len(names) > 1 or type(row).__name__ == "ParameterSet" else [row] for row in rows]
        calls = [{**call, **dict(zip(names, row))} for row in rows for call in calls]
    return calls


def run_function(name, test, given):
    """Runs one test; `given` has what its parameters may be called.

    Raises:
        Broken: it cannot run.
    """
    inner = inspect.unwrap(test)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise Broken(f"`{name}` yields, so that nothing in it runs: use `assert`")
    for call in parametrized(inner):
        needed = {
            key for key, one in inspect.signature(test).parameters.items()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        }
        call = {**{key: given[key] for key in needed & given.keys()}, **call}
        if needed - call.keys():
            raise Broken(f"nothing gives `{name}` its argument `{min(needed - call.keys())}`")
        result = test(**call)
        if inspect.isawaitable(result) and not isinstance(result, Remote):
            finish(result)
        elif inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise Broken(f"`{name}` returns a generator, of which nothing runs: use `assert`")
        elif result is False:
            raise AssertionError(f"{name} returned False")


def loaded(code):
    """The names that a module reads."""
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def run_collected(own, entry, answer, code):
    """Runs what pytest and unittest would find in a module."""
    given = {"candidate": answer, entry: answer} if entry else {}
    for name, value in own.items():
        if isinstance(value, type):
            if issubclass(value, unittest.TestCase):
                result = FirstFailure()
                unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
                if result.error:
                    raise result.error
            elif name.startswith("Test"):
                run_class(value)
        elif name.startswith("test") and callable(value) and not isinstance(value, Remote):
            try:
                run_function(name, value, given)
            except Broken:
                # A helper that another test calls.
                if name not in loaded(code):
                    raise


def remedy(error):
    """What to do about a module that tests need."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    return f"; install `{error.name}` for {sys.executable}, or write the tests without it"


def is_open(node):
    """Whether the answer is to write it: a function without a body, or a class with one."""
    if isinstance(node, ast.ClassDef):
        return any(is_open(inner) for inner in node.body)
    if not isinstance(node, FUNCTIONS):
        return False
    body = node.body[isinstance(node.body[0], ast.Expr) and isinstance(getattr(node.body[0], "value", None), ast.Constant):]
    return not body or len(body) == 1 and (ast.unparse(body[0]).startswith(("pass", "...", "raise NotImplemented")))


def before_tests(code, entry):
    """Runs what stands before the answer, without what the answer is to define; its module, and these names."""
    lines, module = code.splitlines(), types.ModuleType("before")
    sys.modules["before"] = module
    while True:
        try:
            tree = ast.parse("\n".join(lines))
            break
        except SyntaxError:
            # What the answer goes on with.
            lines.pop()
    is_own = lambda node: getattr(node, "name", None) == entry and entry or is_open(node)
    missing = {node.name for node in tree.body if is_own(node)} | {entry}
    tree.body = [node for node in tree.body if not is_own(node)]
    if tree.body:
        exec(compile(tree, "before.py", "exec", dont_inherit=True), module.__dict__)
    return module, missing


def passed(code, entry, before, link, names):
    try:
        module, missing = before_tests(before, entry)
        helpers = module.__dict__
        own = {name: value for name, value in helpers.items() if not name.startswith("__") and name not in missing}
    except BaseException as error:
        return {"broken": f"`before`: {type(error).__name__}: {error}" + remedy(error)}
    link.named = own
    link.kinds = {name: value for name, value in own.items() if isinstance(value, type) and value.__module__ == "before"}
    names = {name: value for name, value in names.items() if name not in own}
    try:
        tests = compile(code, "tests.py", "exec", dont_inherit=True)
        every = list(codes(tests))
        used = {name for one in every for name in one.co_names}
        if not any(map(can_fail, every)):
            raise Broken("nothing in them can fail: use `assert`")
        call = check_call(tests, entry)
        # Most tests need no more.
        run = {id(one) for one in tests.co_consts if hasattr(one, "co_name") and one.co_name.startswith("test")}
        is_plain = all(id(one) in run or call and one.co_name == "check" for one in every if is_function(one))
        if not (is_plain and used.isdisjoint(FLOW)):
            tree = ast.parse(code, "tests.py")
            refuse_idle(tree, used & names.keys() | {entry}, "check" if call else None)
            tests = compile(ast.fix_missing_locations(Flow().visit(tree)), "tests.py", "exec", dont_inherit=True)
        if call:
            check = "import asyncio; asyncio.run(" + call + ")" if "async def check(" in code else call
            code += f"\n\n{check}\n"
            check = compile("\n" * (code.count("\n") - 1) + check, "tests.py", "exec", dont_inherit=True)
    except Broken as error:
        return {"broken": str(error)}
    except (SyntaxError, ValueError) as error:
        return {"broken": f"line {getattr(error, 'lineno', 1)}: {error}"}
    module = types.ModuleType("tests")
    sys.modules["tests"], space = module, module.__dict__
    # What an answer calls `abs` is not what its tests use.
    known = [name for name in names if not name.startswith("__") and (name == entry or not hasattr(builtins, name))]
    given = {name: decode(names[name], link, None, {}) for name in known}
    for name, value in given.items():
        if isinstance(value, Remote):
            value._kind = name
    helpers.update({name: given[name] for name in missing & given.keys()})
    space.update({**given, **own})
    space["__builtins__"] = BUILTINS
    try:
        exec(tests, space)
        if call:
            exec(check, space)
        known = {**given, **own}
        collected = {name: value for name, value in space.items() if name not in known or value is not known[name]}
        run_collected(collected, entry, given.get(entry), code)
        if link.gone:
            raise link.gone
        if not link.asked and not any(type(given.get(name)) in PLAIN for name in used & given.keys()):
            return {"broken": "they pass without a call of the answer's functions"}
    except BaseException as error:
        if isinstance(error, Broken):
            return {"broken": str(error)}
        error = link.gone or error
        trace = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in trace if frame.filename == "tests.py"]
        line = frames[-1].lineno if frames else 0
        asked = any(frame.name == "_ask" for frame in trace)
        if isinstance(error, ImportError) and not asked:
            return {"broken": f"line {line}: {error}" + remedy(error)}
        source = code.splitlines()[line - 1].strip() if 0 < line <= len(code.splitlines()) else ""
        text = f"{error}" if isinstance(error, Gone) else "".join(traceback.format_exception_only(type(error), error)).strip()
        kind = "ended" if isinstance(error, Gone) else "wrong" if isinstance(error, AssertionError) and not asked else "exception"
        return {"failed": text, "kind": kind, "line": line, "source": source, "last": link.last}
    return {"passed": True}


serve()
