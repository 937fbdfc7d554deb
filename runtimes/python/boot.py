# Runs main.py as `python main.py` would, but by its bare file name, so that
# tracebacks say `File "main.py"`.
#
# It must leave nothing behind in the program's world: no name in `__main__`, no
# module, no frame in a traceback. How a program ends (exit status, finalisation,
# SIGINT) stays the interpreter's own affair: exceptions pass through here.


def boot():
    import os
    import sys

    def without_boot(traceback):
        while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
            traceback = traceback.tb_next
        return traceback

    def warm(kept):
        # What packages would make anew in each run, such as matplotlib's list of
        # fonts, was made when they were installed.
        caches = os.path.join(os.environ.get("HOME", "/tmp"), ".cache")
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

    def report(kind, error, traceback):
        sys.excepthook = hook
        traceback = without_boot(traceback)
        error.__traceback__ = traceback
        sys.last_traceback = traceback
        hook(kind, error, traceback)

    packages = os.environ.get("PYTHONUSERBASE", "/nowhere")
    warm(os.path.join(packages, "warm"))
    lend(packages)
    name = sys.argv[1]
    workspace = os.getcwd()
    path = os.path.join(workspace, name)
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = workspace
    del sys.argv[0]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.orig_argv[0]] + sys.argv

    namespace = globals()
    __file__ = namespace["__file__"]
    namespace["__file__"] = path
    namespace["__loader__"].path = path
    del namespace["boot"]

    try:
        with open(path, "rb") as file:
            source = file.read()
        program = compile(source, name, "exec", dont_inherit=True)
        del source, file
        exec(program, namespace)
    except SystemExit:
        raise
    except BaseException:
        # The interpreter calls the hook, and reports it if the hook itself fails.
        hook = getattr(sys, "excepthook", sys.__excepthook__)
        sys.excepthook = report
        raise


boot()
