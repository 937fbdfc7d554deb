# The interpreter of a session: runs cells one after the other in one namespace.
#
# Reads cells from a descriptor, whose number is its argument, and answers there with
# results and how each cell went. What it says there is only a program's word: the
# server believes nothing of it but that it came from this box. Output goes to the
# ordinary streams.
#
# Programs share this interpreter and may take it apart, so all that the loop below
# needs is bound here, once. No thread is ever started, and asyncio is imported with
# the first cell that awaits: both keep it small, and fit to be forked.


def kernel():
    import _signal
    import ast
    import builtins
    import linecache
    import os
    import sys
    import traceback
    from types import ModuleType

    CHANNEL = int(sys.argv[1])
    # Kinds of frames, to and fro.
    RUN = 1
    RESULT, FAILED, END = 1, 2, 3
    # How a cell went, as END has it.
    DONE, RAISED, EXITED = 0, 1, 2
    # Cells whose text is kept for tracebacks.
    KEPT = 200
    # Characters of one text in a result, and bytes of any other form.
    TEXT, BYTES = 1 << 20, 8 << 20
    COROUTINE = 0x80
    AWAITS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    FUTURES = 0
    for feature in __import__("__future__").all_feature_names:
        FUTURES |= getattr(__import__("__future__"), feature).compiler_flag

    here = os.path.dirname(os.path.abspath(__file__))
    own_pid = os.getpid()
    getpid, leave, read, write, dup2 = os.getpid, os._exit, os.read, os.write, os.dup2
    close, urandom, environ = os.close, os.urandom, os.environ
    compiled, evaluate, represent = compile, eval, repr
    kind, has, text, number, size, plain = type, hasattr, str, int, len, isinstance
    raises = (BaseException,)
    modules = sys.modules
    encode, decode = str.encode, bytes.decode
    stdout, stderr = sys.stdout, sys.stderr
    spare = os.dup(1), os.dup(2)

    os.set_inheritable(CHANNEL, False)

    def forked():
        # The child of a fork has no business with the server.
        try:
            close(CHANNEL)
        except OSError:
            pass

    os.register_at_fork(after_in_child=forked)

    # Programs find an ordinary main module.
    main = ModuleType("__main__")
    main.__builtins__ = builtins
    space = main.__dict__
    modules["__main__"] = main
    sys.argv[:] = [""]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[1:] = []
    sys.path[0] = ""

    state = {"busy": False, "cell": 0, "count": 0, "flags": 0, "loop": None, "stdin": False}
    texts = {}

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
        while left:
            left = left[write(CHANNEL, left):]

    def fields(body):
        found, at = [], 0
        while at < size(body):
            length = number.from_bytes(body[at:at + 4], "little")
            found.append(body[at + 4:at + 4 + length])
            at += 4 + length
        return found

    def interrupted(_signum, _frame):
        if state["busy"]:
            raise KeyboardInterrupt

    def utf8(value):
        return encode(value, "utf-8", "replace")

    # Results: how a value looks, in each form that there is.

    FORMS = (
        ("_repr_html_", "text/html"),
        ("_repr_markdown_", "text/markdown"),
        ("_repr_svg_", "image/svg+xml"),
        ("_repr_png_", "image/png"),
        ("_repr_jpeg_", "image/jpeg"),
        ("_repr_pdf_", "application/pdf"),
        ("_repr_latex_", "text/latex"),
        ("_repr_json_", "application/json"),
        ("_repr_javascript_", "application/javascript"),
    )

    def packed(form, value):
        # As bytes: Base64 for what is no text.
        if plain(value, tuple):
            # With metadata, which nobody here reads.
            value = value[0]
        if form in ("image/png", "image/jpeg", "application/pdf"):
            if plain(value, text):
                return utf8(value)
            import binascii

            return binascii.b2a_base64(value, newline=False)
        if plain(value, text):
            return utf8(value)
        import json

        return utf8(json.dumps(value, default=repr))

    def cut(value):
        if size(value) <= TEXT:
            return value
        return value[:TEXT] + "… [%d characters omitted]" % (size(value) - TEXT)

    def bundle(value):
        # Looked up on the type: what answers to any name, such as a mock, has none.
        forms = {}
        if not plain(value, kind):
            cls = kind(value)
            if has(cls, "_repr_mimebundle_"):
                try:
                    given = cls._repr_mimebundle_(value)
                    if plain(given, tuple):
                        given = given[0]
                    for form in given or ():
                        forms[form] = packed(form, given[form])
                except Exception:
                    forms = {}
            for method, form in FORMS:
                if form not in forms and has(cls, method):
                    try:
                        given = getattr(cls, method)(value)
                        if given is not None:
                            forms[form] = packed(form, given)
                    except Exception:
                        # Another form may do.
                        pass
            known = state.get("tables")
            if known and plain(value, known) and "application/json" not in forms:
                try:
                    head = value.head(1000)
                    forms["application/json"] = utf8(head.to_json(orient="split", date_format="iso"))
                except Exception:
                    pass
        if "image/png" in forms and size(forms["image/png"]) > BYTES:
            # Photographs are smaller so.
            del forms["image/png"]
        elif "image/png" in forms:
            forms.pop("image/jpeg", None)
        if "text/plain" not in forms:
            forms["text/plain"] = utf8(cut(represent(value)))
        return forms

    def sink(caught):
        # Results go to this list from now on, or to the server as ever.
        state["sink"] = caught

    def result(forms, is_value):
        if state.get("sink") is not None:
            state["sink"].append({form: decode(forms[form], "utf-8") for form in forms})
            return
        flat = [b"\x01" if is_value else b"\x00"]
        for form in forms:
            if size(forms[form]) <= BYTES:
                flat.append(utf8(form))
                flat.append(forms[form])
        if size(flat) > 1:
            send(RESULT, *flat)

    def display(*values, **options):
        """Shows values as results of the cell, in the order of the calls."""
        if getpid() != own_pid:
            return
        for value in values:
            if options.get("raw") and plain(value, dict):
                result({form: packed(form, value[form]) for form in value}, False)
            else:
                result(bundle(prepared(value)), False)

    def prepared(value):
        # What has to be known of a library before its values are shown.
        pandas = modules.get("pandas")
        if pandas is not None and "tables" not in state and has(pandas, "DataFrame"):
            state["tables"] = (pandas.DataFrame,)
        return value

    builtins.display = display

    # Figures of matplotlib, shown or left open.

    def picture(figure, save):
        import io

        dpi = figure.dpi
        width, height = figure.get_size_inches()
        # A picture of more pixels takes minutes and says no more.
        most = (16e6 / max(width * height, 1e-6)) ** 0.5
        options = {"format": "png", "dpi": min(dpi, most)}
        try:
            box = figure.get_tightbbox()
            if box.width * box.height <= 4 * width * height and dpi <= most:
                options["bbox_inches"] = "tight"
        except Exception:
            pass
        target = io.BytesIO()
        save(figure, target, **options)
        forms = {"image/png": packed("image/png", target.getvalue())}
        forms["text/plain"] = utf8(repr(figure))
        result(forms, False)

    class Plots:
        def find_spec(self, name, path=None, target=None):
            if not name.startswith("matplotlib.backends.backend_"):
                return
            package = os.path.dirname(modules["matplotlib"].__file__)
            scope = {"__name__": "matplotlib.figures"}
            with open(os.path.join(here, "figures.py"), "rb") as file:
                source = file.read()
            exec(compiled(source, os.path.join(package, "figures.py"), "exec"), scope)
            rest = scope["figures"](None, picture)
            if rest:
                state["figures"] = rest
                sys.meta_path = [one for one in sys.meta_path if one is not self]

    sys.meta_path.insert(-1, Plots())

    # Input, variables and streams of a cell.

    def feed(given):
        if not given and not state["stdin"]:
            return
        state["stdin"] = bool(given)
        if given:
            try:
                file = os.memfd_create("stdin")
            except (AttributeError, OSError):
                name = os.path.join(environ.get("TMPDIR", "/tmp"), "stdin" + urandom(8).hex())
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
                os.fstat(at)
            except OSError:
                dup2(spare[at - 1], at)
            stream = getattr(sys, name, None)
            if stream is None or getattr(stream, "closed", False):
                if first.closed:
                    first = open(at, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
                setattr(sys, name, first)

    def flush():
        for stream in (sys.stdout, sys.stderr, stdout, stderr):
            try:
                stream.flush()
            except Exception:
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
        return compiled(source, name, "exec", ast.PyCF_ONLY_AST | AWAITS | state["flags"], dont_inherit=True)

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
            # Tracebacks show the lines as they were written, so not their new columns.
            for node in ast.walk(tree):
                if getattr(node, "lineno", None) in state["magics"].changed:
                    node.col_offset = 0
                    node.end_col_offset = max(node.end_col_offset, 1 << 16)
        last = None
        if tree.body and plain(tree.body[-1], ast.Expr):
            last = tree.body.pop()
        flags = AWAITS | state["flags"]
        if tree.body:
            do(compiled(tree, name, "exec", flags, dont_inherit=True))
        if last is not None:
            flags = AWAITS | state["flags"]
            value = do(compiled(ast.Expression(last.value), name, "eval", flags, dont_inherit=True))
            if value is not None and not silenced(source, last):
                builtins._ = value
                forms = bundle(prepared(value))
                own = state.get("shown")
                if own is not None:
                    own(value, forms)
                result(forms, True)

    def translate(source):
        # What notebooks take besides Python: looked at only when it is no Python.
        if not any(sign in source for sign in "%!?"):
            return None
        magics = state.get("magics")
        if magics is None:
            scope = {"__name__": "magics"}
            with open(os.path.join(here, "magics.py"), "rb") as file:
                exec(compiled(file.read(), os.path.join(here, "magics.py"), "exec"), scope)
            magics = state["magics"] = scope["magics"](space, display, sink)
        return magics(source)

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
            told = "".join(traceback.format_exception(kind(error), error, trace))
        except Exception:
            told = kind(error).__name__ + "\n"
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(kind(error), error, trace)
        else:
            try:
                sys.stderr.write(told)
            except Exception:
                write(spare[1], utf8(told))
        try:
            message = text(error)
        except Exception:
            message = ""
        if getpid() != own_pid:
            return
        send(FAILED, utf8(kind(error).__name__), utf8(cut(message)), utf8(cut(told)))

    def exit_code(error):
        code = error.code
        if code is None:
            return 0
        if plain(code, number):
            return code & 0xFF
        try:
            sys.stderr.write(text(code) + "\n")
        except Exception:
            pass
        return 1

    def execute(source):
        state["count"] += 1
        name = "<cell %d>" % state["count"]
        texts[name] = None
        linecache.cache[name] = (size(source), None, source.splitlines(True), name)
        if size(texts) > KEPT:
            linecache.cache.pop(next(iter(texts)), None)
            del texts[next(iter(texts))]
        outcome, code = DONE, 0
        try:
            try:
                state["busy"] = True
                run(source, name)
                rest = state.get("figures")
                if rest is not None:
                    rest()
            finally:
                state["busy"] = False
                if "magics" in state:
                    state["magics"].ended()
        except SystemExit as error:
            outcome, code = EXITED, exit_code(error)
        except raises as error:
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
            name = os.fsdecode(name)
            before[name] = environ.get(name)
            environ[name] = os.fsdecode(value)
        _signal.signal(_signal.SIGINT, interrupted)
        outcome, code = execute(source)
        flush()
        if getpid() != own_pid:
            # A child that the cell forked, and that came back here.
            leave(code)
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
        send(END, bytes((outcome,)), number.to_bytes(code, 4, "little"))

    _signal.signal(_signal.SIGINT, interrupted)
    # The cell that the server is told of before there is any: it can begin.
    send(END, b"\0", bytes(4))
    while True:
        head = receive(13)
        body = receive(number.from_bytes(head[:4], "little") - 9)
        state["cell"] = number.from_bytes(head[5:13], "little")
        if head[4] == RUN:
            cell(body)


kernel()
