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

# Characters that plots should have a font for, by the scripts that people miss.
WANTED = {
    "Chinese": "\u9500\u552e\u989d",
    "Japanese": "\u3042\u30a2\u58f2",
    "Korean": "\ub9e4\ucd9c",
    "emoji": "\U0001f600\U0001f680",
}
# Where matplotlib looks for fonts, and the machine's are.
FONTS = ("/usr/share/fonts", "/usr/local/share/fonts")


def has(path, text):
    """Which of the characters a font has and can draw as outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        font.set_size(12, 72)
        known = font.get_charmap()
        found = {character for character in text if ord(character) in known}
        for character in found:
            font.load_char(ord(character))
        return found
    except Exception:
        # A font of bitmaps, or a broken one.
        return set()


def fallbacks(fonts):
    """The families that have most of the wanted characters, and what is left."""
    missing = set("".join(WANTED.values()))
    # The last resort is matplotlib's own, and draws boxes.
    fonts = [font for font in fonts if not font.name.startswith("Last Resort")]
    plain = [font for font in fonts if font.style == "normal" and str(font.weight) in ("400", "normal", "regular")]
    plain.sort(key=lambda font: ("Sans" not in font.name, "Mono" in font.name, font.name))
    missing -= set().union(*(has(font.fname, missing) for font in plain if font.name == "DejaVu Sans"))
    families = []
    found = {font.name: has(font.fname, missing) for font in plain if not set(font.name) & set(",#:\"'")}
    while missing and found:
        best = max(found, key=lambda name: len(found[name] & missing))
        if not found[best] & missing:
            break
        families.append(best)
        missing -= found[best]
    return families, missing


def directories():
    """The directories that fonts come and go in, with their times; 0 for none."""
    for top in FONTS:
        yield top, os.stat(top).st_mtime_ns if os.path.isdir(top) else 0
        for place, names, _ in os.walk(top):
            for name in names:
                below = os.path.join(place, name)
                if not os.path.islink(below):
                    yield below, os.stat(below).st_mtime_ns


# The list of fonts takes seconds to make where there are many.
if "matplotlib" in sys.modules:
    import matplotlib.font_manager

    kept = matplotlib.get_cachedir()
    os.makedirs("warm/matplotlib")
    for name in os.listdir(kept):
        if name.startswith("fontlist"):
            shutil.copy(os.path.join(kept, name), "warm/matplotlib")
    os.mkdir("kept")
    with open("kept/seen", "w") as file:
        file.writelines("%d %s\n" % (time, place) for place, time in directories())
    families, missing = fallbacks(matplotlib.font_manager.fontManager.ttflist)
    if families:
        with open("kept/matplotlibrc", "w") as file:
            file.write("font.family: %s\n" % ", ".join(["sans-serif"] + families))
    scripts = [script for script, characters in WANTED.items() if set(characters) & missing]
    if scripts:
        print("note=No font here has all characters of: %s. Plots show boxes for them; on Debian and Ubuntu: apt install fonts-wqy-microhei fonts-symbola, then: codex-server packages install" % ", ".join(scripts))
