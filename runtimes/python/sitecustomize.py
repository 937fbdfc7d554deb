# Makes the interpreter run main.py as `python main.py` does, but by its bare file
# name, so that tracebacks say `File "main.py"`.
#
# The interpreter imports this before the program, which it then runs itself: as
# compiled code, which it takes from a descriptor. So there is no frame below the
# program, for stack traces, warnings and recursion as for everybody else. Nothing
# of this may be left when the program begins: no module, no entry of a path, no name
# in `__main__`. The variable that leads here is, so that interpreters which the
# program starts write whole lines, too.
#
# A program that is forked from a warm interpreter begins the same way: zygote.py runs this
# file once, and each copy calls the `begin` that it leaves in the module.


def boot():
    import marshal
    import os
    import sys

    # The descriptor that the command line names. The program never sees it.
    FD = 63
    NAME = "main.py"
    # Where an interpreter that was started ahead waits for its program.
    CHANNEL = 62
    # Modules that are changed when they are imported.
    HOOKED = (
        "IPython.core.display", "IPython.core.display_functions",
        "PIL.ImageShow", "plotly.io._renderers",
    )

    def warm(packages):
        # What packages would make anew in each run, such as matplotlib's list of
        # fonts, was made when they were installed. Directories tell by their times
        # that it is of another machine, such as one with fewer fonts.
        kept = os.path.join(packages, "warm")
        caches = os.path.join(os.environ.get("HOME", "/tmp"), ".cache")
        try:
            with open(os.path.join(packages, "kept", "seen")) as seen:
                for line in seen:
                    time, _, place = line.rstrip("\n").partition(" ")
                    now = os.stat(place).st_mtime_ns if os.path.isdir(place) else 0
                    if now != int(time):
                        os.environ.pop("MATPLOTLIBRC", None)
                        return
        except OSError:
            # A set of an older server, which noted nothing.
            pass
        try:
            for package in os.listdir(kept):
                os.makedirs(os.path.join(caches, package))
                for name in os.listdir(os.path.join(kept, package)):
                    os.symlink(os.path.join(kept, package, name), os.path.join(caches, package, name))
        except OSError:
            # Nothing was kept; then it is made as everywhere.
            pass

    def lend(base):
        # A venv takes no user site, which is where packages are lent to every
        # other interpreter: after the library, before its own packages.
        if sys.prefix == sys.base_prefix or sys.flags.no_user_site:
            return
        import site

        place = os.path.join(base, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
        if place in sys.path or not os.path.isdir(place):
            return
        own = site.getsitepackages()
        end = len(sys.path)
        site.addsitedir(place)
        lent = sys.path[end:]
        del sys.path[end:]
        first = next((at for at, entry in enumerate(sys.path) if entry in own), end)
        sys.path[first:first] = lent

    def shows(here):
        # What notebooks have to show values: loaded when it is used. Returns what does
        # that.
        import builtins

        loaded = []

        def shown():
            if not loaded:
                path = os.path.join(here, "shown.py")
                scope = {"__name__": "shown"}
                with open(path, "rb") as file:
                    exec(compile(file.read(), path, "exec", dont_inherit=True), scope)
                loaded.append(scope["shown"](here))
            return loaded[0]

        def display(*values, **options):
            """Shows values as results of the program, in the order of the calls."""
            return shown().display(*values, **options)

        display.__module__, display.__qualname__ = "builtins", "display"
        builtins.display = display
        return shown

    def plots(here, workspace, shown):
        # matplotlib looks for a backend when it plots first; then what it shows is
        # made to come back.
        taken = []

        class Plots:
            def find_spec(self, name, path=None, target=None):
                if name in HOOKED:
                    return shown().libraries()(self, name, path, target)
                self.released(name)

            def released(self, name):
                # Called too for a module that was loaded ahead, when the program gets it.
                if taken or not name.startswith("matplotlib.backends.backend_"):
                    return
                # Of matplotlib by its name and place, so that its warnings are still
                # of the program's lines.
                package = os.path.dirname(sys.modules["matplotlib"].__file__)
                scope = {"__name__": "matplotlib.figures"}
                with open(os.path.join(here, "figures.py"), "rb") as file:
                    text = file.read()
                exec(compile(text, os.path.join(package, "figures.py"), "exec"), scope)
                if scope["figures"](workspace, shown_by=shown):
                    taken.append(shown().state.setdefault("figures", True))

        class Stubs:
            # What shows values in notebooks, where that is not installed.
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("IPython", "matplotlib_inline"):
                    return shown().libraries().stub(name)

        sys.meta_path.insert(-1, Plots())
        sys.meta_path.append(Stubs())

    def leave():
        # Takes back what led the interpreter here, and lets the machine's own module
        # of this name come, if there is one.
        here = os.path.dirname(__file__)
        if here in sys.path:
            sys.path.remove(here)
        own = sys.modules.pop("sitecustomize")
        try:
            import sitecustomize
        except ImportError as error:
            if error.name != "sitecustomize":
                raise
            # The import that goes on here wants to find it; `settle` takes it away.
            sys.modules["sitecustomize"] = own
        return own

    def compiled(main, path):
        # A program that cannot be compiled raises its error when it is run, so that
        # all else is as always, but for this frame.
        with open(path, "rb") as file:
            source = file.read()
        try:
            return compile(source, NAME, "exec", dont_inherit=True)
        except BaseException as error:
            hook = sys.excepthook

            def report(kind, error, traceback):
                sys.excepthook = hook
                error.__traceback__ = sys.last_traceback = None
                hook(kind, error, None)

            main.error = error.with_traceback(None)
            sys.excepthook = report
            return compile("raise globals().pop('error')", __file__, "exec")

    def lines():
        # A print reaches its pipe in one piece, so that threads and processes do not
        # mix theirs: the streams go out by lines, as in a terminal. What a print leaves
        # without a line's end goes out when the print is over, and what a program
        # writes to standard output itself at once, so that no kill takes it away.
        #
        # Programs see nothing of it: no frame of ours lies under a `__str__` that print
        # calls, or on the way of an error. Instead, what stands for print has a
        # `__call__` that is made for each call anew, and ends with it; what is to
        # happen at its end is done in C.
        import builtins
        from _functools import partial
        from itertools import repeat, starmap

        out, err = sys.stdout, sys.stderr
        show, put = builtins.print, out.write
        for stream in (out, err):
            stream.reconfigure(line_buffering=True, write_through=False)
        # Holds an entry for each print that is under way.
        prints = []

        def ends(*calls):
            # Returns what makes all of these calls, one after the other.
            return zip(*(starmap(call, repeat(())) for call in calls)).__next__

        class Print(partial):
            __slots__ = ()
            __del__ = ends(prints.pop, out.flush, err.flush)

        class Write(partial):
            __slots__ = ()
            __del__ = out.flush

        class Sheet:
            # Standard output as print sees it, which does not go out at each piece.
            __slots__ = ()
            write = put
            flush = out.flush

        sheet = Sheet()

        def prints_now(_):
            if sys.stdout is not out:
                return show
            prints.append(None)
            return Print(show, file=sheet)

        def writes_now(_):
            return put if prints else Write(put)

        def native(real, call):
            class builtin_function_or_method:
                __slots__ = ()
                __module__ = real.__module__
                __doc__ = real.__doc__
                __class__ = property(lambda _: type(real))
                __call__ = property(call)

                def __getattr__(self, name):
                    return getattr(real, name)

                def __repr__(self):
                    return repr(real)

                def __reduce__(self):
                    return real.__reduce__()

            return builtin_function_or_method()

        builtins.print = native(show, prints_now)
        out.write = native(put, writes_now)

    def wait():
        # In a box that is made ahead: says that all is prepared, and goes on when the
        # program is there. Nothing is left of it.
        try:
            os.write(CHANNEL, b"r")
        except BrokenPipeError:
            # The program is there already, and nobody waits for this.
            pass
        except OSError:
            # Started for this program.
            return
        told = os.read(CHANNEL, 1)
        os.close(CHANNEL)
        if not told:
            os._exit(0)
        if told == b"\0":
            # Nothing is to be read: then this is what programs find there.
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.close(null)

    def begin():
        # Returns what a run's program still needs: `prepare`, `settle` and its path;
        # nothing for others.
        here = os.path.dirname(__file__)
        program = sys.argv[:1] == ["/proc/self/fd/%d" % FD]
        if program or sys.argv[:1] == [os.path.join(here, "kernel.py")]:
            packages = os.environ.get("PYTHONUSERBASE", "/nowhere")
            warm(packages)
            lend(packages)
        # The kernel of a session does the rest itself. And an interpreter that a program
        # started writes whole lines, and that is all.
        own = leave()
        return once(here, own) if program else None

    def once(here, own):
        workspace = os.getcwd()
        plots(here, workspace, shows(here))
        path = os.path.join(workspace, NAME)
        main = sys.modules["__main__"]

        def settle():
            # What else a program finds.
            if sys.modules.get("sitecustomize") is own:
                del sys.modules["sitecustomize"]
            if not getattr(sys.flags, "safe_path", False):
                sys.path[0] = workspace
            sys.argv[0] = NAME
            if hasattr(sys, "orig_argv"):
                sys.orig_argv = [sys.orig_argv[0]] + sys.argv

        def prepare():
            # Returns the program's code.
            wait()
            code = compiled(main, path)
            # What is there already the interpreter leaves as it is.
            main.__file__ = path
            main.__cached__ = None
            return code

        return prepare, settle, path

    def hand_over(prepare, settle, path):
        # Has the interpreter run the program's code.

        # Imported by the interpreter itself, so at no cost.
        import _frozen_importlib_external as external

        code = marshal.dumps(prepare())
        try:
            file = os.memfd_create(NAME)
        except (AttributeError, OSError):
            # Not every interpreter has it, nor does every box allow it.
            name = os.path.join(os.environ.get("TMPDIR", "/tmp"), NAME + os.urandom(8).hex())
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            os.unlink(name)
        os.dup2(file, FD)
        os.close(file)
        with open(FD, "wb", closefd=False) as file:
            file.write(external.MAGIC_NUMBER + bytes(12))
            file.write(code)
        sourceless = external.SourcelessFileLoader

        def start(name, _):
            # The last that is called before the program: the interpreter asks for
            # the loader of `__main__`.
            external.SourcelessFileLoader = sourceless
            os.close(FD)
            settle()
            return external.SourceFileLoader(name, path)

        external.SourcelessFileLoader = start

    if sys.implementation.name == "cpython" and sys.version_info >= (3, 8):
        lines()
    zygote = sys.modules.pop("codex.zygote", None)
    if zygote is not None:
        zygote.begin = begin
        return
    program = begin()
    if program is not None:
        hand_over(*program)


boot()
