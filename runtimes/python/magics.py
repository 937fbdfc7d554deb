# What notebooks take besides Python: `!command`, `%name`, `%%name` and `name?`.
#
# kernel.py loads this with the first cell that is no Python. A cell is translated line
# for line, so that line numbers stay; what a line became calls `__magic__`, which is
# put among the builtins with each translation. Lines inside strings and brackets are
# a program's own and stay as they are.


def magics(space, display, sink=None):
    import builtins
    import os
    import re
    import sys
    import time

    NAME = "__magic__"
    # Taken and left without effect, since nothing here depends on them.
    IGNORED = (
        "autoreload", "automagic", "colors", "config", "gui", "load_ext", "precision",
        "pylab", "reload_ext", "unload_ext", "xmode",
    )
    SHOWN = {
        "html": "text/html",
        "javascript": "application/javascript",
        "js": "application/javascript",
        "latex": "text/latex",
        "markdown": "text/markdown",
        "svg": "image/svg+xml",
    }
    # `ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT`
    PARSED = 0x400 | 0x2000
    # What a command may be given as an argument; longer scripts go by a file.
    LONGEST = 100000

    TARGET = r"[^\W\d][\w.]*(?:\[[^\]=]*\])?"
    MAGIC = re.compile(r"(\s*)%[ \t]*([^\W\d]\w*)(?:\s+(.*)|(\W.*)|)$", re.DOTALL)
    SHELL = re.compile(r"(\s*)(!!?)(.*)$", re.DOTALL)
    ASSIGNED = re.compile(r"(\s*%s(?:\s*,\s*%s)*\s*,?\s*=)\s*([!%%])(.*)$" % (TARGET, TARGET), re.DOTALL)
    HELP = re.compile(r"(\s*)(\?{0,2})\s*(%{0,2}[^\W\d][\w.]*)\s*(\?{0,2})\s*;?\s*$")
    CELL = re.compile(r"%%([^\W\d]\w*)[ \t]*(.*)$")
    TOKEN = re.compile(r"#|'''|\"\"\"|'|\"|[()\[\]{}]")
    FIELD = re.compile(r"\$\$|\$([^\W\d]\w*)|\{\{|\}\}|(?<!\$)\{([^{}\n]+)\}")

    class UsageError(Exception):
        """A magic that there is not, or that was called in another way than it takes."""

    UsageError.__module__, UsageError.__qualname__ = "builtins", "UsageError"

    # Lines: which of them begin a statement, and what they become.

    class Scanner:
        # Goes over a program's lines and knows whether the next one begins a statement.
        def __init__(self):
            self.depth, self.quote, self.joined = 0, None, False

        def begins(self):
            return not (self.depth or self.quote or self.joined)

        def take(self, line):
            line = line.rstrip("\r\n")
            at, self.joined = 0, False
            while True:
                if self.quote:
                    at = self.string(line, at)
                    if at is None:
                        return
                found = TOKEN.search(line, at)
                if not found:
                    self.joined = line.endswith("\\")
                    return
                at, sign = found.end(), found.group()
                if sign == "#":
                    return
                if sign in "([{":
                    self.depth += 1
                elif sign in ")]}":
                    self.depth = max(self.depth - 1, 0)
                else:
                    self.quote = sign

        def string(self, line, at):
            # Where the string ends that is open at `at`; None if not in this line.
            while at < len(line):
                if line[at] == "\\":
                    at += 2
                elif line.startswith(self.quote, at):
                    at += len(self.quote)
                    self.quote = None
                    return at
                else:
                    at += 1
            if len(self.quote) == 1 and at == len(line):
                # Only a backslash takes such a string to the next line.
                self.quote = None
            return None

    def call(name, *words):
        return "%s.%s(%s)" % (NAME, name, ", ".join(ascii(word) for word in words))

    def timed(words):
        # As a part of the cell, so that it may await, and assign where it stands.
        new = translated(words)
        if new is not None and ASSIGNED.match(words):
            return "%s.clock(); %s; %s.timed()" % (NAME, new, NAME)
        if new is not None:
            return "%s.timed(%s.clock(), (%s))" % (NAME, NAME, new)
        try:
            body = compile(words, "<magic>", "exec", PARSED, dont_inherit=True).body
        except (SyntaxError, ValueError):
            body = []
        if not body or any(hasattr(one, "body") for one in body):
            return call("line", "time", words)
        # Without a comment, which would take what comes after it.
        words = words.encode("utf-8")[:body[-1].end_col_offset].decode("utf-8")
        if len(body) == 1 and hasattr(body[0], "value") and not hasattr(body[0], "targets") \
                and not hasattr(body[0], "target"):
            return "%s.timed(%s.clock(), (%s))" % (NAME, NAME, words)
        return "%s.clock(); %s; %s.timed()" % (NAME, words, NAME)

    def line_magic(name, words):
        if name == "time" and words.strip():
            return timed(words.strip())
        return call("line", name, words)

    def translated(line):
        # What a line becomes that begins a statement; None if it is Python.
        found = SHELL.match(line)
        if found:
            return found.group(1) + call("listed" if found.group(2) == "!!" else "shell", found.group(3))
        found = HELP.match(line)
        if found and (found.group(2) or found.group(4)):
            marks = max(len(found.group(2)), len(found.group(4)))
            return found.group(1) + call("help", found.group(3), marks)
        found = MAGIC.match(line)
        if found:
            return found.group(1) + line_magic(found.group(2), found.group(3) or found.group(4) or "")
        found = ASSIGNED.match(line)
        if found:
            if found.group(2) == "!":
                return found.group(1) + " " + call("listed", found.group(3))
            name, _, words = found.group(3).partition(" ")
            if not name.isidentifier():
                return None
            return found.group(1) + " " + line_magic(name, words)
        return None

    def lines_of(source):
        return source.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def all_lines(lines, first):
        # The lines in Python, and which of them are not the user's own.
        scanner, done, changed = Scanner(), [], set()
        at = 0
        while at < len(lines):
            line, many = lines[at], 1
            new = None
            if scanner.begins() and any(sign in line for sign in "%!?"):
                while line.endswith("\\") and at + many < len(lines) and translated(line) is not None:
                    line = line[:-1] + lines[at + many]
                    many += 1
                new = translated(line)
            if new is None:
                line, many, new = lines[at], 1, None
                scanner.take(line)
                done.append(line)
            else:
                changed.update(range(first + at, first + at + many))
                done.append(new)
                done.extend([""] * (many - 1))
            at += many
        return done, changed

    def translate(source):
        lines = lines_of(source)
        at = 0
        while at < len(lines) and not lines[at].strip():
            at += 1
        found = CELL.match(lines[at]) if at < len(lines) else None
        magic.around = []
        if found and not found.group(2).endswith("?"):
            name, words = found.groups()
            rest, changed = lines[at + 1:], set()
            if name in ("time", "capture"):
                done, changed = all_lines(rest, at + 2)
                head = call("around_" + name, words)
            else:
                done = [""] * len(rest)
                head = call("cell", name, words.strip(), "\n".join(rest), at + 1)
                if name == "timeit":
                    changed.update(range(at + 2, at + 2 + len(rest)))
            done = [""] * at + [head] + done
            changed.add(at + 1)
        else:
            done, changed = all_lines(lines, 1)
            if not changed:
                return None
        builtins.__dict__[NAME] = magic
        translate.changed = changed
        return "\n".join(done)

    # What translated lines call.

    outer = {"directory": None}

    def scope():
        # The names of the code that called: of the cell, or of a function of it.
        frame = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename == OWN:
            frame = frame.f_back
        return frame.f_locals if frame is not None else space

    def filled(command, names):
        # With `{expression}` and `$name` from the program; what it has not is the
        # shell's, and so is `{print}` of an awk script.
        def value(found):
            text = found.group()
            if text in ("$$", "{{", "}}"):
                return text[0]
            name, field = found.groups()
            word = (name or field).strip()
            if word.isidentifier():
                if word in names:
                    return str(names[word])
                return str(space[word]) if word in space else text
            try:
                return str(eval(word, space, names))
            except Exception:
                pass
            expression, colon, shape = word.rpartition(":")
            try:
                if colon:
                    return format(eval(expression, space, names), shape)
                if word.endswith("!r"):
                    return repr(eval(word[:-2], space, names))
            except Exception:
                pass
            return text

        return FIELD.sub(value, command)

    def flush():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass

    def execute(argv, kept=False):
        # Runs a command, whose output is the cell's, or is returned.
        import subprocess

        flush()
        caught = [sys.stdout, sys.stderr] if magic.capturing else [None, None]
        if kept:
            caught[0] = None
        pipes = [subprocess.PIPE if stream is not None else None for stream in caught]
        if kept:
            pipes[0] = subprocess.PIPE
        child = subprocess.Popen(argv, stdout=pipes[0], stderr=pipes[1])
        try:
            given = child.communicate() if any(pipes) else (child.wait(), None)
        except BaseException:
            # It had the same interrupt. What still runs is not left behind.
            try:
                child.wait(0.25)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            raise
        for stream, told in zip(caught, given):
            if stream is not None and told:
                stream.write(told.decode("utf-8", "replace"))
        code = child.returncode
        # As shells have it, for one that a signal ended.
        space["_exit_code"] = code if code >= 0 else 128 - code
        return given[0].decode("utf-8", "replace") if kept else None

    def split(words):
        import shlex

        try:
            return shlex.split(words)
        except ValueError as error:
            raise UsageError("%s: %s" % (error, words)) from None

    def in_units(seconds):
        if seconds >= 60:
            minutes, rest = divmod(int(seconds), 60)
            hours, minutes = divmod(minutes, 60)
            return ("%dh " % hours if hours else "") + "%dmin %ds" % (minutes, rest)
        for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
            if seconds >= size:
                return "%.3g %s" % (seconds / size, unit)
        return "%.3g ns" % (seconds * 1e9)

    def variables():
        return sorted(name for name in space if isinstance(name, str) and not name.startswith("_"))

    def timeit(words, body, line):
        # As a function, so that names are as quick as they are in one; times are of
        # single rounds, the mean and its deviation.
        import ast

        count, rounds, quiet, wanted = 0, 7, False, False
        while words.startswith("-"):
            found = re.match(r"-(?:([nr])\s*(\d+)|([qocpt])(?:\s*\d+)?)(?:\s+|$)(.*)$", words, re.DOTALL)
            if not found:
                raise UsageError("%timeit takes -n N, -r N, -q and -o")
            option, number, flag, words = found.groups()
            if option == "n":
                count = int(number)
            elif option == "r":
                rounds = max(int(number), 1)
            quiet, wanted = quiet or flag == "q", wanted or flag == "o"
        setup, text = (words, body) if body is not None else ("", words)
        if not text.strip():
            raise UsageError("%timeit takes a statement, and %%timeit a cell")
        frame = sys._getframe(1)
        while frame.f_code.co_filename == OWN:
            frame = frame.f_back
        name = frame.f_code.co_filename
        line = frame.f_lineno if body is None else line + 1
        tree = ast.parse(
            "def __timeit__(__rounds__, __clock__):\n"
            " 0\n __begun__ = __clock__()\n for __round__ in __rounds__: 0\n"
            " return __clock__() - __begun__\n"
        )
        function = tree.body[0]
        function.body[2].body = ast.parse("\n" * (line - 1) + text, name).body or function.body[2].body
        if body is None:
            for node in ast.walk(function.body[2]):
                # As for all of a translated line: its columns are others now.
                if hasattr(node, "col_offset"):
                    node.col_offset, node.end_col_offset = 0, 1 << 16
        function.body[:1] = ast.parse("\n" * (line - 1) + setup, name).body or function.body[:1]
        made = dict(space) if frame.f_locals is not space else space
        if made is not space:
            made.update(frame.f_locals)
        held = space.get("__timeit__", made)
        exec(compile(tree, name, "exec", dont_inherit=True), made)
        run = made.pop("__timeit__")
        if held is not made:
            space["__timeit__"] = held
        import gc
        from itertools import repeat

        collects = gc.isenabled()
        gc.disable()
        try:
            clock = time.perf_counter
            if not count:
                count = 1
                while run(repeat(None, count), clock) < 0.2 and count < 10 ** 9:
                    count *= 10
            took = [run(repeat(None, count), clock) / count for _ in range(rounds)]
        finally:
            if collects:
                gc.enable()
        mean = sum(took) / rounds
        spread = (sum((one - mean) ** 2 for one in took) / rounds) ** 0.5
        told = "%s ± %s per loop (mean ± std. dev. of %d run%s, %s loop%s each)" % (
            in_units(mean), in_units(spread), rounds, "s"[rounds == 1:],
            format(count, ","), "s"[count == 1:])
        if not quiet:
            print(told)
        if not wanted:
            return None
        from types import SimpleNamespace

        return SimpleNamespace(average=mean, stdev=spread, best=min(took), worst=max(took),
                               loops=count, repeat=rounds, all_runs=[one * count for one in took])

    # The magics of a line. Their docstrings are what `%name?` says.

    def do_matplotlib(words):
        """%matplotlib [backend]: accepted; figures are always shown."""

    def do_time(words):
        """%time statement: runs it and says how long it took. %%time: the whole cell."""
        if not words.strip():
            raise UsageError("%time takes a statement, and %%time a cell")
        names, line = scope(), sys._getframe(2)
        code = compile("\n" * (line.f_lineno - 1) + words.strip(), line.f_code.co_filename, "exec", dont_inherit=True)
        magic.clock()
        if names is space:
            exec(code, space)
        else:
            exec(code, space, names)
        magic.timed()

    def do_timeit(words):
        """%timeit [-n N] [-r N] statement: runs it many times. %%timeit: the whole cell."""
        return timeit(words, None, 0)

    def do_cd(words):
        """%cd [directory]: changes the working directory; - goes back."""
        place = words.strip()
        if len(place) > 1 and place[0] == place[-1] and place[0] in "'\"":
            place = place[1:-1]
        before = os.getcwd()
        if place == "-":
            if outer["directory"] is None:
                raise UsageError("%cd -: there is no directory to go back to")
            place = outer["directory"]
        os.chdir(os.path.expanduser(filled(place, scope()) or "~"))
        outer["directory"] = before
        print(os.getcwd())

    def do_pwd(words):
        """%pwd: the working directory."""
        return os.getcwd()

    def do_ls(words):
        """%ls [arguments]: lists files, as the command does."""
        execute(["sh", "-c", "ls " + filled(words, scope())])

    def do_env(words):
        """%env: the environment. %env NAME: a variable. %env NAME=value: sets one."""
        words = words.strip()
        if not words:
            return dict(os.environ)
        name, sign, value = words.partition("=")
        if not sign:
            name, sign, value = words.partition(" ")
        if not sign:
            if name not in os.environ:
                raise UsageError("there is no variable %s in the environment" % name)
            return os.environ[name]
        os.environ[name.strip()] = filled(value.strip(), scope())
        print("env: %s=%s" % (name.strip(), os.environ[name.strip()]))

    def do_who(words):
        """%who [type ...]: the names that were made here."""
        kinds = words.split()
        names = [name for name in variables() if not kinds or type(space[name]).__name__ in kinds]
        print("\t".join(names) if names else "There are no variables.")

    def do_whos(words):
        """%whos [type ...]: the names that were made here, with type and value."""
        import reprlib

        kinds, rows = words.split(), []
        for name in variables():
            value = space[name]
            if kinds and type(value).__name__ not in kinds:
                continue
            try:
                shape = getattr(type(value), "shape", None) is not None and value.shape
                if shape or shape == ():
                    told = "shape " + "x".join(str(size) for size in shape)
                elif isinstance(value, (list, tuple, dict, set, frozenset)) and len(value) > 5:
                    told = "n=%d" % len(value)
                else:
                    told = " ".join(reprlib.repr(value).split())
            except Exception:
                told = "?"
            rows.append((name, type(value).__name__, told))
        if not rows:
            return print("There are no variables.")
        rows.insert(0, ("Variable", "Type", "Data/Info"))
        first, second = (max(len(row[at]) for row in rows) for at in (0, 1))
        for row in rows:
            print("%-*s   %-*s   %s" % (first, row[0], second, row[1], row[2]))

    def do_reset(words):
        """%reset: forgets all names that were made here."""
        for name in [name for name in space if not (isinstance(name, str) and name.startswith("__"))]:
            del space[name]

    def do_pip(words):
        """%pip arguments: pip, for the interpreter of this session."""
        import shlex

        execute(["sh", "-c", shlex.quote(sys.executable) + " -m pip " + filled(words, scope())])

    def do_conda(words):
        """%conda arguments: as %pip."""
        do_pip(re.sub(r"(?:^|\s)(?:-y|--yes|(?:-c|--channel)\s+\S+)(?=\s|$)", "", words))

    # Magics of a cell.

    def cell_writefile(words, body, line):
        """%%writefile [-a] file: writes the cell to a file; -a appends."""
        names = split(filled(words, scope()))
        append = [name for name in names if name in ("-a", "--append")]
        names = [name for name in names if name not in ("-a", "--append")]
        if len(names) != 1:
            raise UsageError("%%writefile takes one file, and -a to append")
        path = os.path.expanduser(names[0])
        told = "Appending to" if append else "Overwriting" if os.path.exists(path) else "Writing"
        print(told, path)
        with open(path, "a" if append else "w", encoding="utf-8") as file:
            file.write(body if body.endswith("\n") else body + "\n")

    def script(shell, words, body):
        argv = [shell] + split(words)
        if len(body.encode("utf-8", "surrogateescape")) < LONGEST and "\0" not in body:
            execute(argv + ["-c", body])
        else:
            import tempfile

            with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".sh") as file:
                file.write(body)
                file.flush()
                execute(argv + [file.name])
        if space["_exit_code"]:
            import subprocess

            raise subprocess.CalledProcessError(space["_exit_code"], shell)

    def cell_bash(words, body, line):
        """%%bash [options]: runs the cell with bash."""
        script("bash", words, body)

    def cell_sh(words, body, line):
        """%%sh [options]: runs the cell with sh."""
        script("sh", words, body)

    def cell_timeit(words, body, line):
        """%%timeit [-n N] [-r N] [setup]: runs the cell many times and says how long it takes."""
        return timeit(words, body, line)

    LINES = {name[3:]: each for name, each in list(locals().items()) if name.startswith("do_")}
    CELLS = {name[5:]: each for name, each in list(locals().items()) if name.startswith("cell_")}
    LINES["set_env"] = do_env

    def known():
        return "%s; %s" % (
            " ".join("%" + name for name in sorted(set(LINES) | set(IGNORED))),
            " ".join("%%" + name for name in sorted(set(CELLS) | set(SHOWN) | {"time", "capture"})),
        )

    class Captured:
        """What a cell with %%capture gave."""

        def __init__(self):
            self.stdout, self.stderr, self.outputs = "", "", []

        def show(self):
            sys.stdout.write(self.stdout)
            sys.stderr.write(self.stderr)
            for forms in self.outputs:
                display(forms, raw=True)

        __call__ = show

        def __str__(self):
            return self.stdout

    class Magic:
        capturing = False
        around = []

        def __repr__(self):
            return "<what lines with % and ! call>"

        def line(self, name, words):
            if name in IGNORED:
                print("%%%s is ignored" % name, file=sys.stderr)
            elif name in LINES:
                return LINES[name](words)
            elif name in CELLS or name in SHOWN or name == "capture":
                raise UsageError("%%%%%s takes a cell: it must be on its first line" % name)
            else:
                raise UsageError("there is no %%%s. Known are %s" % (name, known()))

        def cell(self, name, words, body, line):
            if name in SHOWN:
                return display({SHOWN[name]: body}, raw=True)
            if name in CELLS:
                return CELLS[name](words, body, line)
            if name in LINES or name in IGNORED:
                raise UsageError("%%%s is for a line, not for a cell" % name)
            raise UsageError("there is no %%%%%s. Known are %s" % (name, known()))

        def shell(self, command):
            execute(["sh", "-c", filled(command, scope())])

        def listed(self, command):
            return execute(["sh", "-c", filled(command, scope())], kept=True).splitlines()

        def help(self, name, marks):
            if name.startswith("%"):
                name = name.lstrip("%")
                each = LINES.get(name) or CELLS.get(name)
                print(each.__doc__ if each else "Known are " + known())
                return
            try:
                value = eval(name, space, scope())
            except Exception:
                print("Object `%s` not found." % name)
                return
            import inspect

            if callable(value):
                try:
                    print("Signature: %s%s" % (name, inspect.signature(value)))
                except (TypeError, ValueError):
                    pass
            print("Type: %s" % type(value).__name__)
            if marks > 1:
                try:
                    print("Source:\n" + inspect.getsource(value))
                    return
                except (TypeError, OSError):
                    pass
            told = inspect.getdoc(value)
            if told:
                print("Docstring:\n" + told)

        # Times of a line or of a cell.

        begun = ()

        def spent(self):
            try:
                from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

                both = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
                return sum(one.ru_utime for one in both), sum(one.ru_stime for one in both)
            except ImportError:
                times = os.times()
                return times[0] + times[2], times[1] + times[3]

        def clock(self):
            spent = self.spent()
            self.begun += ((time.perf_counter(),) + spent,)

        def timed(self, _=None, value=None):
            wall = time.perf_counter()
            spent = self.spent()
            begun = self.begun[-1]
            self.begun = self.begun[:-1]
            user, system = spent[0] - begun[1], spent[1] - begun[2]
            print("CPU times: user %s, sys: %s, total: %s" % (
                in_units(user), in_units(system), in_units(user + system)))
            print("Wall time: %s" % in_units(wall - begun[0]))
            return value

        def around_time(self, words):
            self.begun = ()
            self.clock()
            self.around.append(self.timed)

        def around_capture(self, words):
            import io

            options = words.split()
            names = [word for word in options if not word.startswith("-")]
            if len(names) > 1 or set(options) - set(names) - {"--no-stdout", "--no-stderr", "--no-display"}:
                raise UsageError("%%capture takes a name, --no-stdout, --no-stderr and --no-display")
            captured, held = Captured(), (sys.stdout, sys.stderr)
            texts = io.StringIO(), io.StringIO()
            if "--no-stdout" not in options:
                sys.stdout = texts[0]
            if "--no-stderr" not in options:
                sys.stderr = texts[1]
            if sink is not None and "--no-display" not in options:
                sink(captured.outputs)
            self.capturing = True

            def ended():
                self.capturing = False
                sys.stdout, sys.stderr = held
                if sink is not None:
                    sink(None)
                captured.stdout, captured.stderr = texts[0].getvalue(), texts[1].getvalue()
                if names:
                    space[names[0]] = captured

            self.around.append(ended)

    def ended():
        # Called by the kernel when a cell is over, however it went.
        around, magic.around, magic.begun = magic.around, [], magic.begun
        for each in reversed(around):
            each()
        magic.begun = ()

    def widen(tree):
        # Tracebacks show lines as they were written, so not the columns of these.
        import ast

        for node in ast.walk(tree):
            if getattr(node, "lineno", None) in translate.changed:
                node.col_offset, node.end_col_offset = 0, 1 << 16

    magic = Magic()
    OWN = translate.__code__.co_filename
    translate.ended, translate.widen = ended, widen
    translate.changed = set()
    return translate
