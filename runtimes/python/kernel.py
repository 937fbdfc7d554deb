# The interpreter of a session: runs cells one after the other in one namespace.
#
# Reads cells from a descriptor, whose number is its argument, and answers there with
# results and how each cell went. What it says there is only a program's word: the
# server believes nothing of it but that it came from this box. Output goes to the
# ordinary streams.
#
# Programs share this interpreter and may take it apart, so all that the loop below
# needs is bound here, once. No thread is ever started, and what only some cells need
# (asyncio, what tells errors) is imported with the first of them: that keeps it small,
# fit to be forked, and soon ready.

# Of our own, here and in the files that are loaded below.
__builtins__ = dict(vars(__import__("builtins")))


def kernel():
    import _ast
    import _signal
    import builtins
    import os
    import sys

    CHANNEL = int(sys.argv[1])
    # Kinds of frames, to and fro.
    RUN, FORK = 1, 2
    FAILED, END, FORKED, REFUSED = 2, 3, 4, 5
    # How a cell went, as END has it.
    DONE, RAISED, EXITED = 0, 1, 2
    # Cells whose text is kept for tracebacks.
    KEPT = 200
    # Characters of one text.
    TEXT = 1 << 20
    # Modules that are changed when they are imported.
    HOOKED = (
        "IPython.core.display", "IPython.core.display_functions",
        "PIL.ImageShow", "plotly.io._renderers",
    )
    COROUTINE = 0x80
    AWAITS = _ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    FUTURES = 0
    for feature in __import__("__future__").all_feature_names:
        FUTURES |= getattr(__import__("__future__"), feature).compiler_flag

    here = os.path.dirname(os.path.abspath(__file__))
    getpid, leave, read, write, dup2 = os.getpid, os._exit, os.read, os.write, os.dup2
    close, environ, fstat, fsdecode = os.close, os.environ, os.fstat, os.fsdecode
    signal, SIGINT = _signal.signal, _signal.SIGINT
    load = __import__
    compiled, evaluate = compile, eval
    kind, text, number, size, plain = type, str, int, len, isinstance
    raises = (BaseException,)
    modules = sys.modules
    encode, decode = str.encode, bytes.decode
    stdout, stderr = sys.stdout, sys.stderr
    spare = os.dup(1), os.dup(2)

    os.set_inheritable(CHANNEL, False)

    def forked():
        # The child of a fork has no business with the server, but for one it ordered.
        if state["forking"]:
            return
        try:
            close(CHANNEL)
        except OSError:
            pass

    os.register_at_fork(after_in_child=forked)

    # Programs find an ordinary main module.
    main = type(sys)("__main__")
    main.__builtins__ = builtins
    space = main.__dict__
    modules["__main__"] = main
    sys.argv[:] = [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[1:] = []
    sys.path[0] = ""

    # Threads of a program may show values, too: frames are sent one by one.
    lock = __import__("_thread").allocate_lock()
    ident = __import__("_thread").get_ident
    first_thread = ident()

    state = {
        "busy": False, "open": False, "sending": False, "due": False,
        "cell": 0, "count": 0, "flags": 0, "loop": None, "stdin": False,
        "pid": os.getpid(), "forking": False, "lines": None, "tell": None,
    }
    texts, parts = {}, {}
    # Code that a zygote compiled, by path.
    ahead = globals().pop("ahead", {})

    def receive(count):
        parts = []
        while count:
            part = read(CHANNEL, count)
            if not part:
                # The server has let go of this session.
                leave(0)
            parts.append(part)
            count -= size(part)
        return b"".join(parts)

    def send(what, *fields):
        body = b"".join(number.to_bytes(size(field), 4, "little") + field for field in fields)
        head = number.to_bytes(size(body) + 9, 4, "little")
        head += bytes((what,)) + number.to_bytes(state["cell"], 8, "little")
        left = memoryview(head + body)
        # An interrupt waits until the frame is whole.
        own = ident() == first_thread
        if own:
            state["sending"] = True
        lock.acquire()
        try:
            # A thread that outlives its cell has nobody to tell.
            if what >= END or state["open"]:
                state["open"] = what < END
                while left:
                    left = left[write(CHANNEL, left):]
        finally:
            lock.release()
            if own:
                state["sending"] = False
        if own and state["due"]:
            state["due"] = False
            interrupted(0, None)

    def fields(body):
        found, at = [], 0
        while at < size(body):
            length = number.from_bytes(body[at:at + 4], "little")
            found.append(body[at + 4:at + 4 + length])
            at += 4 + length
        return found

    def interrupted(_signum, _frame):
        if state["sending"]:
            state["due"] = True
        elif state["busy"]:
            raise KeyboardInterrupt

    def part(name, *given, of="", place=here):
        # What is not always needed is in files of its own, which are loaded when it is.
        if name not in parts:
            scope = {"__name__": of + name, "__builtins__": __builtins__}
            path = os.path.join(place, name + ".py")
            code = ahead.pop(path, None)
            if code is None:
                with open(os.path.join(here, name + ".py"), "rb") as file:
                    code = compiled(file.read(), path, "exec", dont_inherit=True)
            evaluate(code, scope)
            parts[name] = scope[name](*given)
        return parts[name]

    def utf8(value):
        return encode(value, "utf-8", "replace")

    def cut(value):
        if size(value) <= TEXT:
            return value
        return value[:TEXT] + "… [%d characters omitted]" % (size(value) - TEXT)

    # How values look, and the figures of a cell that are shown already.

    bundle, shows_itself, display, result, sink, left_open, drawn = part(
        "results", state, part, send, utf8, cut, getpid
    )
    builtins.display = display

    def watch():
        # Once pyplot is there: from then on what it shows and leaves open comes here.
        if "figures" in state or "matplotlib.pyplot" not in modules:
            return
        try:
            # Of matplotlib by name and place: warnings are of the program's lines.
            place = os.path.dirname(modules["matplotlib"].__file__)
            rest = part("figures", None, left_open, of="matplotlib.", place=place)
        except Exception:
            # Something else by that name, such as a mock: the program's own concern.
            return
        if rest:
            state["figures"] = rest
        else:
            # Not whole yet.
            del parts["figures"]

    # Modules of others, in place of which or after which something of ours comes.

    NOTED = {
        # Who reads lines of files finds those of cells.
        "linecache": lambda module: lines_are_in(module.cache),
        "traceback": lambda module: state.update(tell=module.format_exception),
    }

    def noted(name, path, target):
        # The module as ever, which is known here as soon as it is there.
        spec = find_file(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                NOTED[name](module)

            spec.loader.exec_module = exec_module
        return spec

    def lines_are_in(cache):
        state["lines"] = cache
        for name in texts:
            cache[name] = entry(name)

    class Hooks:
        def find_spec(self, name, path=None, target=None):
            if name in HOOKED:
                return part("libraries", display)(self, name, path, target)
            if name in NOTED:
                return noted(name, path, target)
            if name.startswith("matplotlib.backends.backend_"):
                watch()
            return None

        def released(self, name):
            # Of a module that was loaded ahead: the program has it now.
            if name in NOTED:
                NOTED[name](modules[name])
            if name.startswith("matplotlib.backends.backend_"):
                watch()

    class Stubs:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("IPython", "matplotlib_inline"):
                return part("libraries", display).stub(name)
            return None

    # Before what finds modules in files, and after it.
    sys.meta_path.insert(-1, Hooks())
    sys.meta_path.append(Stubs())
    find_file = load("_frozen_importlib_external").PathFinder.find_spec
    for name in NOTED:
        if name in modules:
            NOTED[name](modules[name])

    # Input, variables and streams of a cell.

    def feed(given):
        if not given and not state["stdin"]:
            return
        state["stdin"] = bool(given)
        if given:
            try:
                file = os.memfd_create("stdin")
            except (AttributeError, OSError):
                name = os.path.join(environ.get("TMPDIR", "/tmp"), "stdin" + os.urandom(8).hex())
                file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                os.unlink(name)
            left = memoryview(given)
            while left:
                left = left[write(file, left):]
            os.lseek(file, 0, 0)
        else:
            file = os.open("/dev/null", os.O_RDONLY)
        dup2(file, 0)
        close(file)
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)

    def repair():
        # Streams that are closed come back; those that were led elsewhere stay.
        for at, name, first in ((1, "stdout", stdout), (2, "stderr", stderr)):
            try:
                fstat(at)
            except OSError:
                dup2(spare[at - 1], at)
            stream = getattr(sys, name, None)
            try:
                closed = stream is None or getattr(stream, "closed", False)
            except raises:
                closed = True
            if closed:
                if first.closed:
                    first = open(at, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, name, first)

    def flush():
        for stream in (sys.stdout, sys.stderr, stdout, stderr):
            try:
                stream.flush()
            except raises:
                pass

    # Cells.

    def drive(awaited):
        loop = state["loop"]
        if loop is None or loop.is_closed():
            import asyncio

            loop = state["loop"] = asyncio.new_event_loop()
        import asyncio

        asyncio.set_event_loop(loop)
        task = loop.create_task(awaited)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            # What the task has to clean up is done before the cell ends.
            if not task.done():
                task.cancel()
                try:
                    loop.run_until_complete(task)
                except BaseException:
                    pass
            raise

    def do(code):
        state["flags"] |= code.co_flags & FUTURES
        # For programs that clear their names: else our own builtins would come.
        space.setdefault("__builtins__", builtins)
        space.setdefault("__name__", "__main__")
        value = evaluate(code, space)
        if code.co_flags & COROUTINE:
            value = drive(value)
        return value

    def silenced(source, last):
        # Whether a semicolon follows the last expression.
        lines = encode(source, "utf-8").split(b"\n")
        rest = lines[last.end_lineno - 1][last.end_col_offset:]
        return rest.lstrip(b") \t\\").startswith(b";")

    def parsed(source, name):
        return compiled(source, name, "exec", _ast.PyCF_ONLY_AST | AWAITS | state["flags"], dont_inherit=True)

    def run(source, name):
        translated = None
        try:
            tree = parsed(source, name)
        except SyntaxError as error:
            translated = translate(source)
            if translated is None:
                raise error.with_traceback(None) from None
        if translated is not None:
            tree = parsed(translated, name)
            parts["magics"].widen(tree)
        last = None
        if tree.body and plain(tree.body[-1], _ast.Expr):
            last = tree.body.pop()
        flags = AWAITS | state["flags"]
        if tree.body:
            do(compiled(tree, name, "exec", flags, dont_inherit=True))
        if last is not None:
            flags = AWAITS | state["flags"]
            value = do(compiled(_ast.Expression(last.value), name, "eval", flags, dont_inherit=True))
            if value is not None and not silenced(source, last):
                builtins._ = value
                if not shows_itself(value):
                    result(bundle(value), True)

    def translate(source):
        # What notebooks take besides Python: looked at only when it is no Python.
        if not any(sign in source for sign in "%!?"):
            return None
        return part("magics", space, display, sink)(source)

    def ours(file):
        return file.startswith(here + "/") or file.endswith("/matplotlib/figures.py")

    def report(error):
        # Frames of ours are nobody's concern, and a forked child has its own end.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename not in texts:
            trace = trace.tb_next
        at = trace
        while at is not None:
            rest = at.tb_next
            while rest is not None and ours(rest.tb_frame.f_code.co_filename):
                rest = rest.tb_next
            at.tb_next = rest
            at = rest
        error.__traceback__ = trace
        sys.last_type, sys.last_value, sys.last_traceback = kind(error), error, trace
        try:
            if state["tell"] is None:
                load("traceback")
            told = "".join(state["tell"](kind(error), error, trace))
        except raises:
            told = kind(error).__name__ + "\n"
        try:
            if sys.excepthook is not sys.__excepthook__:
                sys.excepthook(kind(error), error, trace)
            else:
                sys.stderr.write(told)
        except raises:
            write(spare[1], utf8(told))
        try:
            message = text(error)
        except raises:
            message = ""
        if getpid() != state["pid"]:
            return
        send(FAILED, utf8(kind(error).__name__[:200]), utf8(cut(message)), utf8(cut(told)))

    def exit_code(error):
        code = error.code
        if code is None:
            return 0
        if plain(code, number):
            return number.__and__(code, 0xFF)
        try:
            sys.stderr.write(text(code) + "\n")
        except raises:
            pass
        return 1

    def entry(name):
        # For tracebacks: lines as the compiler counts them, each with its end.
        source = texts[name]
        lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        return size(source), None, [line + "\n" for line in lines], name

    def remember(source, name):
        texts[name] = source
        lines = state["lines"]
        if lines is not None:
            lines[name] = entry(name)
        if size(texts) > KEPT:
            first = next(iter(texts))
            del texts[first]
            if lines is not None:
                lines.pop(first, None)

    def execute(source):
        state["count"] += 1
        name = "<cell %d>" % state["count"]
        outcome, code = DONE, 0
        drawn.clear()
        try:
            try:
                state["busy"] = True
                try:
                    remember(source, name)
                except Exception:
                    # Programs may have done anything to that module.
                    pass
                run(source, name)
                watch()
                if "figures" in state:
                    state["figures"]()
            finally:
                state["busy"] = False
                if "magics" in parts:
                    parts["magics"].ended()
        except SystemExit as error:
            outcome, code = EXITED, exit_code(error)
        except raises as error:
            state["busy"] = False
            outcome, code = RAISED, 1
            report(error)
        if outcome != DONE and state.get("figures") is not None:
            try:
                state["figures"]()
            except raises:
                pass
        return outcome, code

    def cell(body):
        found = fields(body)
        source, given, pairs = decode(found[0], "utf-8"), found[1], found[2:]
        repair()
        feed(given)
        before = {}
        for name, value in zip(pairs[::2], pairs[1::2]):
            name = fsdecode(name)
            before[name] = environ.get(name)
            environ[name] = fsdecode(value)
        signal(SIGINT, interrupted)
        outcome, code = execute(source)
        signal(SIGINT, interrupted)
        flush()
        if getpid() != state["pid"]:
            # A child that the cell forked, and that came back here.
            leave(code)
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
        send(END, bytes((outcome,)), number.to_bytes(code, 4, "little"))

    gained = []

    def fork():
        # In the child this tells the server that it can begin, as at the start.
        def tell(made, words):
            if made is None:
                send(REFUSED, *map(utf8, words))
            else:
                send(FORKED, number.to_bytes(made, 4, "little"), *map(utf8, words))

        try:
            child = part("forks", state, (CHANNEL, spare), gained, flush)(tell)
        except raises as error:
            # What a program did to the modules that this needs.
            child = False
            tell(None, [kind(error).__name__ + " when it was to fork"])
        if child:
            send(END, b"\0", bytes(4))

    signal(SIGINT, interrupted)
    # The cell that the server is told of before there is any: it can begin.
    send(END, b"\0", bytes(4))
    while True:
        head = receive(13)
        body = receive(number.from_bytes(head[:4], "little") - 9)
        state["cell"] = number.from_bytes(head[5:13], "little")
        if head[4] == FORK:
            fork()
        if head[4] != RUN:
            continue
        state["open"], state["due"] = True, False
        try:
            cell(body)
        except raises as error:
            # What a program did to the modules that we use: it fails, and goes on.
            state["busy"] = False
            if getpid() != state["pid"]:
                leave(1)
            try:
                report(error)
            except raises:
                pass
            if state["open"]:
                send(END, bytes((RAISED,)), number.to_bytes(1, 4, "little"))


kernel()
