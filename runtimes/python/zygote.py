# The zygote: an interpreter that is started once, loads what programs often import, and
# is forked into boxes, where each copy begins with a program of its own.
#
# It owns the boxes' user namespaces: who runs code in it could enter every box. So it
# runs the interpreter's own library and the modules of `PRELOAD`, and nothing else: no
# code of `.pth` files, no sitecustomize.py but ours, no package that somebody added. All
# of that is run by each copy, when it has given up its rights. It never gets anything of
# a user's, and runs no Python once it serves.
#
# What all copies would do alike is done before: each page that a copy touches, and each
# line it runs, is paid for by every program.
#
# The interpreter imports this in place of `warnings`, which it does, if it has options
# for that, before `site`. So nothing has run before it. Then the interpreter is made to
# believe that `site` was imported, and to call a function of C where it looks for the
# loader of its program, which has no frame below it. That function calls `prepare`.
# In a copy `prepare` returns the program's code, and C evaluates it.


def zygote():
    import sys

    # Where this file lies in the zygote's root, under the name of `warnings`.
    HERE = "/run/codex"
    # The zygote's socket; later the channel of a program that waits.
    CHANNEL = 62
    MOST_FDS = 4096

    import builtins

    # By module: what it imports.
    direct = {}
    real = builtins.__import__
    here = globals()

    def noting(name, globals=None, locals=None, fromlist=(), level=0):
        module = real(name, globals, locals, fromlist, level)
        own = (globals or {}).get("__name__")
        spec = (globals or {}).get("__spec__")
        # What it imports later on is no need of its import.
        if globals is not here and own is not None and getattr(spec, "_initializing", False):
            whole = name
            if level:
                package = (globals.get("__package__") or own).split(".")
                whole = ".".join(package[: len(package) - level + 1] + [name] * bool(name))
            seen = direct.setdefault(own, set())
            parts = whole.split(".")
            seen.update(".".join(parts[: end + 1]) for end in range(len(parts)))
            seen.update("%s.%s" % (whole, each) for each in fromlist or ())
        return module

    builtins.__import__ = noting

    sys.path[:] = [entry for entry in sys.path if entry != HERE]
    library_path = list(sys.path)
    del sys.warnoptions[:]
    # The real one takes the place of this later.
    del sys.modules["warnings"]

    # Importing `site` must not carry it out: that runs code of packages.
    flags = sys.flags

    class Flags:
        no_site = 1

        def __getattr__(self, name):
            return getattr(flags, name)

    sys.flags = Flags()
    import site

    sys.flags = flags
    import os

    # Local names of `site.addpackage`: code in `.pth` files may look for them in the frame
    # that runs it.
    names = ("line", "sitedir", "name", "known_paths", "fullname", "n")

    def carry_out_site():
        # Carries `site` out as at a start, but only notes the code lines of `.pth` files.
        # Returns these; nothing for an interpreter whose `site` is not known here.
        adds = site.addpackage
        if sys.version_info[:2] > (3, 14) or "exec" not in adds.__code__.co_names:
            return None
        lines = []

        def note(line):
            frame = sys._getframe(1)
            each = {name: frame.f_locals.get(name) for name in names}
            each.update(line=line, before=len(sys.path), at=frame.f_lineno)
            lines.append(each)

        def addpackage(sitedir, name, known_paths):
            first = len(lines)
            known_paths = adds(sitedir, name, known_paths)
            for each in lines[first:]:
                each["after"] = len(sys.path)
            return known_paths

        kept = dict(site.__dict__)
        site.exec, site.addpackage = note, addpackage
        site.execsitecustomize = site.execusercustomize = lambda: None
        try:
            site.main()
        finally:
            del site.exec
            for changed in ("addpackage", "execsitecustomize", "execusercustomize"):
                setattr(site, changed, kept[changed])
        for each in lines:
            each["path"] = list(sys.path)
        if lines:
            del sys.path[lines[0]["before"] :]
        return lines

    support = os.environ["CODEX_SUPPORT"]
    sys.path.insert(0, support)
    lines = carry_out_site()
    program_path = list(sys.path)
    # What a fresh interpreter has loaded when its program begins.
    plain = set(sys.modules)
    # sitecustomize.py imports these.
    plain.update(("_functools", "itertools"))
    # What else is loaded here is of the library.
    sys.path[:] = library_path

    import _frozen_importlib_external as external
    import ctypes
    import warnings

    main = sys.modules["__main__"]
    # What is there already the interpreter leaves as it is.
    main.__file__ = main.__cached__ = None
    sourceless = external.SourcelessFileLoader
    script = sys.argv[0]
    library = ctypes.PyDLL(os.path.join(HERE, "adopt.so"))
    python, libc = ctypes.pythonapi, ctypes.CDLL(None)

    # Modules that were loaded ahead: until a program imports them they are not there.
    stash = {}
    # By module: all that it needs.
    needs = {}
    caught = []

    def packages_path():
        # Returns the directories that `site` adds, without what `.pth` files add.
        prefixes = [sys.prefix, sys.exec_prefix]
        own = os.path.dirname(os.path.dirname(sys.executable))
        if os.path.isfile(os.path.join(own, "pyvenv.cfg")):
            prefixes = [own]
        found = []
        base = os.environ.get("PYTHONUSERBASE")
        if base:
            found.append(os.path.join(base, "lib", "python%d.%d" % sys.version_info[:2], "site-packages"))
        found += site.getsitepackages(prefixes)
        return [place for place in found if os.path.isdir(place)]

    # Where the library and the packages are, in this order.
    known = library_path + packages_path()

    class Handed(ctypes.Structure):
        _fields_ = [("length", ctypes.c_size_t), ("text", ctypes.c_void_p)]

    class Finder:
        # Gives a program a module that was loaded ahead, where it would have found the
        # same one by itself; so it is never wrong, only sooner.

        def find_spec(self, name, path=None, target=None):
            module = stash.get(name)
            if getattr(module, "__spec__", None) is None:
                return None
            parent = name.rpartition(".")[0]
            if parent and sys.modules.get(parent) is not parents.get(parent):
                return None
            if not is_whole(name):
                return None
            return spec_of(name, module)

    # Code of ours by its place, until it is run.
    compiled = {}

    class Loader:
        def __init__(self, module):
            self.module = module
            self.spec = module.__spec__

        def create_module(self, spec):
            return self.module

        def exec_module(self, module):
            module.__spec__ = self.spec
            release(module.__name__)

        def __getattr__(self, name):
            return getattr(self.spec.loader, name)

    def spec_of(name, module):
        real = module.__spec__
        spec = type(real)(name, Loader(module), origin=real.origin, is_package=hasattr(module, "__path__"))
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations = list(module.__path__)
        if real.has_location:
            spec.has_location = True
            spec.cached = real.cached
        return spec

    def is_whole(name):
        # Whether nothing that it needs is found anywhere else first: in a directory of
        # the program's that comes before those of the library.
        places = [entry for entry in sys.path if entry in known]
        if places != known:
            return False
        wanted = {each.partition(".")[0] for each in needs[name]}
        for entry in sys.path:
            if entry in known:
                continue
            try:
                found = os.listdir(entry or ".")
            except (OSError, TypeError):
                return False
            for each in found:
                stem, dot, ending = each.partition(".")
                if stem in wanted and dot + ending in endings:
                    return False
        return True

    # What the name of a module's file ends with; a package is a directory.
    endings = ["", ".py", ".pyc"] + sys.modules["_imp"].extension_suffixes()

    def release(name):
        released = []
        for each in needs[name]:
            module = stash.pop(each, None)
            if module is not None and sys.modules.setdefault(each, module) is module:
                released.append(each)
        # Who changes modules when they are imported is told of these.
        for told in [finder.released for finder in sys.meta_path if hasattr(finder, "released")]:
            for each in released:
                told(each)
        if "numpy.random" in released:
            # Its old generator is a copy of the zygote's; the new ones take their seed
            # from the kernel.
            sys.modules["numpy.random"].seed()

    parents = {}

    def load(names):
        # Loads modules, has them do what programs do first, and says of all what they need.
        for name in names:
            try:
                __import__(name)
            except ImportError:
                continue
        rehearse()
        builtins.__import__ = real
        module_type = type(sys)
        for name, module in list(sys.modules.items()):
            # And what it has got by other ways, but for parts that others import.
            seen = direct.setdefault(name, set())
            if getattr(module, "__spec__", None) is None:
                # Made by another, and part of that.
                direct.setdefault(name.rpartition(".")[0], set()).add(name)
            for value in list(getattr(module, "__dict__", {}).values()):
                if isinstance(value, module_type) and not value.__name__.startswith(name + "."):
                    seen.add(value.__name__)
        for name in sys.modules:
            whole, open_names = {name}, [name]
            while open_names:
                for each in direct.get(open_names.pop(), ()):
                    if each in sys.modules and each not in whole:
                        whole.add(each)
                        open_names.append(each)
            needs[name] = whole

    def science():
        # What packages load and keep at their first use. Nothing else stays: no figure,
        # no state of a generator, no open file.
        import io

        pandas = sys.modules.get("pandas")
        if pandas is not None:
            table = pandas.DataFrame({"a": [1, 2, 2], "b": ["x", "y", "y"]})
            str(table), str(table.describe()), str(table.sum(numeric_only=True))
            str(table.groupby("b").sum()), str(table.groupby("b")["a"].mean())
            pandas.read_csv(io.StringIO("a,b\n1,2\n")).to_csv(io.StringIO())
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            figure, axes = pyplot.subplots()
            axes.plot([1, 2], [3, 4], label="a")
            axes.set_title("Ab 1")
            axes.legend()
            figure.savefig(io.BytesIO(), format="png")
            pyplot.close("all")
            fonts = sys.modules["matplotlib.font_manager"]
            for name in ("_get_font", "get_font"):
                clear = getattr(getattr(fonts, name, None), "cache_clear", None)
                if clear is not None:
                    clear()

    def rehearse():
        # What a program touches from its code to its end, once.
        science()
        scope = {"__name__": "__main__"}
        text = "class A:\n def f(self, n): return [str(i) for i in range(n)]\nB = A().f(300)\ntry: 1 / 0\nexcept Exception as e: pass\n"
        exec(compile(text, "main.py", "exec", dont_inherit=True), scope)

    def prepare():
        try:
            boot, threads = ready()
        except BaseException as error:
            os.write(CHANNEL, ("e%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace")[:2000])
            os._exit(1)
        os.write(CHANNEL, b"u")
        return program(library.serve(CHANNEL), boot, threads)

    def ready():
        import gc

        # It was looked up, and nobody else is to find anything else there.
        external.SourcelessFileLoader = sourceless
        file = os.stat(script)
        for fd in range(3, 16):
            try:
                found = os.fstat(fd)
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
                # Of the interpreter, which will never read it.
                os.close(fd)
        wanted = os.environ["CODEX_PRELOAD"].split()
        for name in ("sitecustomize.py", "kernel.py", "results.py"):
            place = os.path.join(support, name)
            with open(place, "rb") as file:
                compiled[place] = compile(file.read(), place, "exec", dont_inherit=True)
        boot = type(sys)("sitecustomize")
        boot.__file__ = os.path.join(support, "sitecustomize.py")
        sys.modules["codex.zygote"] = boot
        exec(compiled.pop(boot.__file__), boot.__dict__)
        sys.path[:] = known
        # What each directory holds is read here once, and looked up by each copy.
        external.PathFinder.find_spec("codex.nothing", [support] + known)
        for each in lines or ():
            each["run"] = as_of_site(each["at"])
        load(wanted)
        threads = sys.modules.get("threading")
        expect()
        hide()
        gc.collect()
        if hasattr(gc, "freeze"):
            gc.freeze()
        if os.getpid() <= 8:
            raise RuntimeError("the zygote's number could be that of a program in its box")
        if not library.is_alone():
            raise RuntimeError("a module of the profile started a thread")
        if library.descriptors(MOST_FDS) != 4:
            raise RuntimeError("a module of the profile left a file open")
        return boot, threads

    def expect():
        # Takes the command and the environment that nearly all programs have.
        for name in ("CODEX_SUPPORT", "CODEX_PRELOAD", "PYTHONWARNINGS"):
            del os.environ[name]
        os.environ["PYTHONPATH"] = support
        interpreter = ctypes.c_char_p.in_dll(libc, "program_invocation_name").value
        words = [interpreter, b"-u", b"-B", b"/proc/self/fd/63"]
        env = [name + b"=" + value for name, value in sorted(os.environb.items())]
        take(words)
        parts = ([b"%d" % len(words)] + words, env)
        usual.extend(b"".join(entry + b"\0" for entry in part) for part in parts)
        sys.path[:] = program_path

    def take(argv):
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[:] = map(os.fsdecode, argv)
        words = argv[1:]
        while words and words[0].startswith(b"-"):
            del words[0]
        sys.argv[:] = map(os.fsdecode, words)

    def addpackage(line, sitedir, name, known_paths, fullname, n):
        exec(line)

    def as_of_site(at):
        # The same with the names of the module `site`, and at its place in there, for
        # code that looks, and for the report of an error.
        code = addpackage.__code__
        code = code.replace(co_filename=site.addpackage.__code__.co_filename, co_firstlineno=at - 1)
        return type(addpackage)(code, site.__dict__)

    def run_lines(lines):
        # Runs the noted lines in order. Before each, `sys.path` gets what `site` would have
        # added by then.
        failed = None
        for number, each in enumerate(lines):
            file = (each["sitedir"], each["name"])
            path, end = each["path"], len(each["path"])
            if number + 1 < len(lines):
                end = lines[number + 1]["before"]
            start = each["before"]
            if file != failed:
                try:
                    each["run"](*(each[name] for name in names))
                except Exception as error:
                    failed = file
                    # From 3.13 on `n` begins at 1.
                    at = each["n"] + (sys.version_info < (3, 13))
                    print("Error processing line %d of %s:\n" % (at, each["fullname"]), file=sys.stderr)
                    import traceback

                    for text in traceback.format_exception(type(error), error, error.__traceback__.tb_next):
                        for part in text.splitlines():
                            print("  " + part, file=sys.stderr)
                    print("\nRemainder of file ignored", file=sys.stderr)
            if file == failed:
                start = each["after"]
            sys.path += path[start:end]

    def hide():
        # What was loaded ahead is not there until a program imports it.
        for name in list(sys.modules):
            parents[name] = sys.modules[name]
            if name not in plain:
                module = sys.modules.pop(name)
                if name in needs:
                    stash[name] = module
        sys.meta_path.insert(0, Finder())

    def program(socket, boot, threads):
        # A copy's part, after it has given up its rights. Returns the code of its program.
        library.arrive(socket, CHANNEL, place_of_command)
        text = ctypes.string_at(handed.text, handed.length)
        words, env = usual
        if text != words + env:
            count, *entries = text.split(b"\0")[:-1]
            take(entries[: int(count)])
            own = entries[int(count) :]
            if b"".join(entry + b"\0" for entry in own) != env:
                os.environ.clear()
                for entry in own:
                    name, _, value = entry.partition(b"=")
                    os.environb[name] = value
        if threads is not None:
            threads.main_thread()._set_native_id()

        def customize():
            sys.modules["sitecustomize"] = boot
            begun.append(boot.begin())

        begun = []
        if lines is None:
            real, site.execsitecustomize = site.execsitecustomize, customize
            site.main()
            site.execsitecustomize = real
        else:
            run_lines(lines)
            customize()
            if site.ENABLE_USER_SITE:
                site.execusercustomize()
        if begun[0] is None:
            # No run's program: the interpreter of a session.
            place = main.__file__ = sys.argv[0]
            sys.path.insert(0, os.path.dirname(place))
            code = compiled.pop(place, None)
            if code is None:
                with open(place, "rb") as file:
                    code = compile(file.read(), place, "exec", dont_inherit=True)
            # It looks there for what else was compiled.
            main.ahead = dict(compiled)
        else:
            prepare, settle, _ = begun[0]
            sys.path.insert(0, "")
            code = prepare()
            settle()
        compiled.clear()
        main.__loader__ = external.SourceFileLoader("__main__", main.__file__)
        return code

    # The command and the environment that programs are expected to have, as they come.
    usual = []
    handed = Handed()
    place_of_command = ctypes.byref(handed)

    # A program may have replaced anything by its end: what ends it is taken before.
    import atexit
    import gc
    import signal

    leave, flush, kill, me, show = os._exit, libc.fflush, os.kill, os.getpid, print
    default, interrupt, handle = signal.SIG_DFL, signal.SIGINT, signal.signal
    finish, collect, attributes, whole = atexit._run_exitfuncs, gc.collect, main.__dict__, int
    loaded, sequence, is_a, info = sys.modules, list, isinstance, sys.exc_info
    standard = ("stdout", "stderr")
    streams = sys.__dict__

    def end(code):
        # As the interpreter ends, but for the memory, which goes with the process.
        try:
            if "threading" in loaded:
                try:
                    loaded["threading"]._shutdown()
                except BaseException:
                    sys.excepthook(*info())
            try:
                finish()
            except BaseException:
                # Told already.
                pass
            code = flushed(code)
            # In the order in which the interpreter lets go of them.
            for private in (True, False):
                for name in sequence(attributes):
                    if (name[:1] == "_" and name[1:2] != "_") is private and name != "__builtins__":
                        attributes[name] = None
            collect()
            flushed(code)
            flush(None)
        finally:
            leave(code & 0xFF)

    def flushed(code):
        for name in standard:
            try:
                stream = streams[name]
                if stream is not None and not stream.closed:
                    stream.flush()
            except BaseException:
                if name == "stdout":
                    code = 120
        return code

    def exited():
        flush(None)
        code = 1
        try:
            value = caught.pop().code
            if value is None:
                code = 0
            elif is_a(value, whole):
                code = value if -(2**63) <= value < 2**63 else -1
            else:
                show(value, file=streams["stderr"])
        finally:
            end(code)

    def interrupted():
        try:
            flushed(0)
            handle(interrupt, default)
            kill(me(), interrupt)
        finally:
            end(1)

    ends = [lambda: end(0), exited, lambda: end(1), interrupted]
    parts = [ctypes.cast(libc._Fork, ctypes.c_void_p).value]
    for name in (
        "PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyObject_CallObject", "PyEval_EvalCode",
        "PyErr_ExceptionMatches", "PyErr_PrintEx", "PyErr_Fetch", "PyErr_NormalizeException",
        "PyList_Append", "Py_LeaveRecursiveCall",
    ):
        parts.append(ctypes.cast(getattr(python, name), ctypes.c_void_p).value)
    objects = [SystemExit, KeyboardInterrupt, prepare, main.__dict__, caught] + ends
    parts += map(id, objects)
    # Where the command line is, and how long, if it can be told.
    parts.append(ctypes.c_void_p.in_dll(libc, "program_invocation_name").value)
    parts.append(sum(len(os.fsencode(word)) + 1 for word in getattr(sys, "orig_argv", ())))
    table = (ctypes.c_void_p * len(parts))(*parts)
    # As long as the process lives, though nothing of Python's refers to them.
    python.Py_IncRef(ctypes.py_object((objects, table, library)))
    library.know(table)
    library.begin.restype = ctypes.py_object
    library.begin.argtypes = [ctypes.py_object, ctypes.py_object]
    external.SourcelessFileLoader = library.begin


try:
    zygote()
except BaseException as error:
    # Nobody else can be told.
    import os

    os.write(62, ("e%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace")[:2000])
    os._exit(1)
