"""Runs answers in Python for their tests. Reads requests on standard input, one after another, and forks processes for
each, so that nothing is left of one for the next. What an answer should give is not known here: the program that asks
compares. Only tests that are code know it; they run in a process of their own, which calls the answer's over a socket.

A request is a line, `CODE SECONDS OUTPUT KIND:DATA ...`, then the code and the data of each case, of so many bytes:

call  calls a function; data: {"entry": ..., "args": [...]}; reply: {"value": ...}
run   runs a program; data: {"args": [...], "stdin": ...}; reply: {"stdout": ..., "code": ...}
test  runs tests; data: {"tests": CODE, "entry": ...}; reply: {"passed": true}, {"failed": ...} or, where the tests are
      wrong, {"broken": ...}

Other replies: {"raised": ...}, {"ended": ...}, and {"syntax": ...}, {"late": true}, {"long": true}, {"many": true},
after which the answer's other cases are left out. The last line is `clean`, or `used` from a server that ends, because
its folders have changed, its input is out of step, or it serves one request only.
"""
import builtins, ctypes, gc, json, os, select, signal, socket, sys, time, traceback, types, unittest
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
OPERATIONS = {"eq": operator.eq, "iter": iter, "next": next, "len": len, "str": str, "getitem": operator.getitem}
PLAIN = (type(None), bool, int, float, str)
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


def read_reply(said, known):
    """The line that a process has said; an answer may say anything, of which only `known` is taken."""
    try:
        reply = json.loads(said)
        return {key: reply[key] for key in known if key in reply} if known else reply
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
        say(link, {"raised": f"it returned a value of the type {type(value).__name__}, which is not JSON", "line": 1})
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


def encode(value, objects):
    """A value of exactly one of Python's own types; another stays where it is, and its number is sent."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__: [encode(item, objects) for item in value]}
    if kind is dict:
        return {"dict": [[encode(key, objects), encode(item, objects)] for key, item in value.items()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if isinstance(value, Remote):
        return {"object": value._number}
    if objects is None:
        raise TypeError(f"tests cannot pass a value of the type {kind.__name__} to an answer")
    objects.append(value)
    return {"new": len(objects) - 1, "type": kind.__name__}


def decode(value, link, objects):
    if type(value) in PLAIN:
        return value
    (kind, content), *_ = value.items()
    if kind in ("list", "tuple", "set", "frozenset"):
        return getattr(builtins, kind)(decode(item, link, objects) for item in content)
    if kind == "dict":
        return {decode(key, link, objects): decode(item, link, objects) for key, item in content}
    if kind == "bytes":
        return bytes.fromhex(content)
    return objects[content] if kind == "object" else Remote(link, content, str(value["type"]))


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
    say(link, {"names": {name: encode(value, objects) for name, value in names.items()}})
    for line in stream:
        number, name, arguments, keywords, what = json.loads(line)
        try:
            target = objects[number]
            arguments = [decode(value, None, objects) for value in arguments]
            keywords = {key: decode(value, None, objects) for key, value in keywords.items()}
            if what == "get":
                value = getattr(target, name)
            elif what == "call":
                value = target(*arguments, **keywords)
            else:
                value = OPERATIONS[name](target, *arguments)
            # What is changed in place is sent back.
            reply = {"value": encode(value, objects), "arguments": [encode(value, objects) for value in arguments]}
        except BaseException as error:
            reply = {**told(error), "types": [kind.__name__ for kind in type(error).__mro__]}
        say(link, reply)
    os._exit(0)


class Remote:
    """An object of the answer's, in the process of its tests. It is equal to objects of the answer's only, if to any."""

    def __init__(self, link, number, kind):
        self._link, self._number, self._kind = link, number, kind

    def _ask(self, name, *arguments, what="operation", **keywords):
        given = [encode(value, None) for value in arguments]
        named = {key: encode(value, None) for key, value in keywords.items()}
        reply = self._link.ask([self._number, name, given, named, what])
        for old, new in zip(arguments, reply["arguments"]):
            if type(old) in (list, dict, set):
                new = decode(new, self._link, None)
                if new != old:
                    old.clear()
                    old.extend(new) if type(old) is list else old.update(new)
        return decode(reply["value"], self._link, None)

    def __getattr__(self, name):
        value = self._ask(name, what="get")
        if isinstance(value, Remote):
            value._kind = f"{self._kind}.{name}"
        return value

    def __call__(self, *arguments, **keywords):
        shown = [repr(argument) for argument in arguments] + [f"{name}={keywords[name]!r}" for name in keywords]
        called = f"{self._kind}({', '.join(shown)})"[:400]
        try:
            value = self._ask("", *arguments, what="call", **keywords)
        except BaseException as error:
            self._link.last = f"{called} " + ("did not return" if isinstance(error, Gone) else f"raised {type(error).__name__}")
            raise
        self._link.last = f"{called} returned {value!r}"[:500]
        return value

    def __eq__(self, other):
        return isinstance(other, Remote) and bool(self._ask("eq", other))

    def __bool__(self):
        raise TypeError(f"the answer returned an object of the type {self._kind}")

    def __iter__(self):
        return self._ask("iter")

    def __next__(self):
        return self._ask("next")

    def __len__(self):
        return self._ask("len")

    def __str__(self):
        return self._ask("str")

    def __getitem__(self, key):
        return self._ask("getitem", key)

    def __repr__(self):
        return f"an object of the type {self._kind}"


class Gone(BaseException):
    """The answer's process has ended, or did not keep to the protocol."""


class Link:
    def __init__(self, connection, most):
        self.connection, self.stream, self.most, self.last = connection, connection.makefile("rb"), most, None

    def ask(self, question):
        say(self.connection, question)
        reply = self.hear()
        if "raised" in reply:
            known = (getattr(builtins, str(name), None) for name in reply.get("types", []))
            kinds = [kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)]
            raise next(iter(kinds), RuntimeError)(reply["raised"].partition(": ")[2])
        return reply

    def hear(self):
        line = self.stream.readline(self.most)
        if not line.endswith(b"\n"):
            raise Gone("it ended" if len(line) < self.most else "it returned too much")
        return json.loads(line)


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
            reply = passed(data["tests"], data["entry"], link, said["names"])
        else:
            reply = {key: said[key] for key in ANSWERED if key in said}
    except BaseException as error:
        text = str(error)
        is_gone = isinstance(error, Gone)
        said = text if is_gone else f"{type(error).__name__}: {text}"
        reply = {"failed": said, "kind": "ended" if is_gone else "exception", "line": 0}
    say(verdict, reply)


def passed(code, entry, link, names):
    code += f"\n\ncheck({entry})\n" if entry and "def check(" in code else ""
    try:
        tests = compile(code, "tests.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return {"broken": f"line {getattr(error, 'lineno', 1)}: {error}"}
    space = {"__name__": "tests"}
    # What an answer calls `abs` is not what its tests use.
    for name in [name for name in names if name == entry or not hasattr(builtins, name)]:
        value = names[name]
        space[name] = decode(value, link, None)
        if isinstance(space[name], Remote):
            space[name]._kind = name
    given = set(space)
    try:
        exec(tests, space)
        for name in [name for name in space if name.startswith("test") and name not in given]:
            if isinstance(space[name], types.FunctionType):
                space[name]()
        cases = [value for value in space.values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
        for case in cases:
            for name in unittest.defaultTestLoader.getTestCaseNames(case):
                case(name).debug()
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "tests.py"]
        line = frames[-1].lineno if frames else 0
        asked = any(frame.name == "_ask" for frame in traceback.extract_tb(error.__traceback__))
        if isinstance(error, ImportError) and not asked:
            return {"broken": f"line {line}: {error}"}
        source = code.splitlines()[line - 1].strip() if 0 < line <= len(code.splitlines()) else ""
        text = f"{error}" if isinstance(error, Gone) else "".join(traceback.format_exception_only(type(error), error)).strip()
        kind = "ended" if isinstance(error, Gone) else "wrong" if isinstance(error, AssertionError) and not asked else "exception"
        return {"failed": text, "kind": kind, "line": line, "source": source, "last": link.last}
    return {"passed": True}


serve()
