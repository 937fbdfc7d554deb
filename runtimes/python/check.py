# Imports the packages named by its arguments, in a sandbox, before the set is
# used. The files that it leaves below `warm` become a part of the set: sitecustomize.py
# puts them where packages look for what they have kept.
import importlib
import importlib.metadata
import os
import shutil
import sys


def modules(name):
    """The names under which a distribution is imported."""
    found = set()
    for file in importlib.metadata.distribution(name).files or ():
        parts = file.parts
        if len(parts) == 2 and parts[1] == "__init__.py":
            found.add(parts[0])
        elif len(parts) == 1 and file.suffix in (".py", ".so"):
            found.add(parts[0].partition(".")[0])
    return sorted(name for name in found if name.isidentifier() and not name.startswith("_"))


failed = []
for name in sys.argv[1:]:
    try:
        for module in modules(name):
            importlib.import_module(module)
    except BaseException as error:
        failed.append("%s: %s: %s" % (name, type(error).__name__, error))
if failed:
    sys.exit("; ".join(failed))

# The list of fonts takes seconds to make where there are many.
if "matplotlib" in sys.modules:
    import matplotlib.font_manager

    kept = matplotlib.get_cachedir()
    os.makedirs("warm/matplotlib")
    for name in os.listdir(kept):
        if name.startswith("fontlist"):
            shutil.copy(os.path.join(kept, name), "warm/matplotlib")
