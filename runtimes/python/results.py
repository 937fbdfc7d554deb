# What a cell's values look like, in each form that there is, on their way to the server.
#
# kernel.py loads this when it starts, and gives it builtins of its own, as programs may
# break those that they have. What only some values need is in files of their own.


def results(state, part, send, utf8, cut, getpid):
    import sys

    RESULT = 1
    modules = sys.modules
    # Characters of one text in a result, bytes of any form, and of all of a result.
    TEXT, BYTES, ALL = 1 << 20, 8 << 20, 11 << 20
    # Items beyond which a container is not shown whole.
    ITEMS = 10000
    # Figures of the cell that are shown already.
    drawn = []
    # What the server takes; of these, what goes as Base64.
    BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
    KNOWN = BINARY + (
        "text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml",
        "application/json", "application/geo+json", "application/javascript",
        "application/vnd.plotly.v1+json", "application/vnd.vegalite.v5+json",
        "application/vnd.vegalite.v6+json", "application/vnd.codex.chart+json",
    )
    CONTAINERS = (list.__repr__, tuple.__repr__, dict.__repr__, set.__repr__, frozenset.__repr__)
    # Packages whose values have a form of their own, or may be larger than they look.
    NOTED = ("pandas", "PIL", "plotly", "altair", "collections", "array")
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

    def finite(value):
        # JSON has no words for numbers that are none.
        if isinstance(value, float):
            return value if value - value == 0 else None
        if isinstance(value, dict):
            return {str(name): finite(value[name]) for name in value}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return value

    def packed(form, value, checked=False):
        # As bytes: Base64 for what is no text.
        if isinstance(value, tuple):
            # With metadata, which nobody here reads.
            value = value[0]
        if isinstance(value, str):
            if form.endswith("json") and not checked:
                import json

                try:
                    json.loads(value)
                except ValueError:
                    value = json.dumps(value)
            return utf8(value)
        if form in BINARY:
            import binascii

            return binascii.b2a_base64(value, newline=False)
        import json

        try:
            return utf8(json.dumps(value, default=repr, allow_nan=False))
        except (ValueError, TypeError):
            return utf8(json.dumps(finite(value), default=repr))

    def heavy(value, left, depth=0):
        # Whether a value has more items than are shown, as far as it has to be known.
        shown = type(value).__repr__
        if shown in (str.__repr__, bytes.__repr__, bytearray.__repr__):
            return len(value) > TEXT
        if shown not in CONTAINERS or depth > 50:
            return False
        left[0] -= len(value)
        if left[0] < 0:
            return True
        if shown is dict.__repr__:
            value = value.values()
        return any(heavy(item, left, depth + 1) for item in value)

    def noted(cls):
        roots = (getattr(base, "__module__", None) for base in type.mro(cls))
        return any(isinstance(root, str) and root.partition(".")[0] in NOTED for root in roots)

    def special(value, cls):
        # The forms of a value that another file knows how to show.
        try:
            large = heavy(value, [ITEMS])
            if not large and not noted(cls):
                return None
            given = part("forms")(value, large)
            return given and {form: packed(form, given[form], True) for form in given}
        except Exception:
            return None

    def bundle(value):
        # Looked up on the type: what answers to any name, such as a mock, has none.
        forms = {}
        cls = type(value)
        if not isinstance(value, type):
            figure = getattr(modules.get("matplotlib.figure"), "Figure", None)
            if "figures" in state and isinstance(figure, type) and isinstance(value, figure):
                drawn.append(value)
                return picture(value, figure.savefig.__wrapped__)
            forms = special(value, cls)
            if forms:
                return forms
            forms = {}
            if hasattr(cls, "_repr_mimebundle_"):
                try:
                    given = cls._repr_mimebundle_(value)
                    if isinstance(given, tuple):
                        given = given[0]
                    for form in given or ():
                        forms[form] = packed(form, given[form])
                except Exception as error:
                    forms = {}
                    sys.stderr.write("%s: %s\n" % (cls.__name__, error))
            for method, form in FORMS:
                if form not in forms and hasattr(cls, method):
                    try:
                        given = getattr(cls, method)(value)
                        if given is not None:
                            forms[form] = packed(form, given)
                    except Exception:
                        # Another form may do.
                        pass
        if "image/png" in forms and len(forms["image/png"]) > BYTES:
            # Photographs are smaller so.
            del forms["image/png"]
        elif "image/png" in forms:
            forms.pop("image/jpeg", None)
        if "text/plain" not in forms:
            forms["text/plain"] = utf8(cut(repr(value)))
        return forms

    def sink(caught):
        # Results go to this list from now on, or to the server as ever.
        state["sink"] = caught

    def result(forms, is_value):
        if state.get("sink") is not None:
            state["sink"].append({form: forms[form].decode("utf-8") for form in forms})
            return
        flat, left = [b"\x01" if is_value else b"\x00"], ALL
        for form in KNOWN:
            if form in forms and len(forms[form]) <= min(BYTES, left):
                left -= len(forms[form])
                flat.append(utf8(form))
                flat.append(forms[form])
        if len(flat) > 1:
            send(RESULT, *flat)

    def shows_itself(value):
        # Whether it did: by the method that notebooks ask first.
        cls = type(value)
        if isinstance(value, type) or not hasattr(cls, "_ipython_display_") or noted(cls):
            return False
        try:
            cls._ipython_display_(value)
        except Exception:
            return False
        return True

    def display(*values, raw=False, display_id=None, **_options):
        """Shows values as results of the cell, in the order of the calls."""
        if getpid() != state["pid"]:
            return None
        for value in values:
            if raw and isinstance(value, dict):
                result({form: packed(form, value[form]) for form in value}, False)
            elif not shows_itself(value):
                result(bundle(value), False)
        return part("libraries", display).DisplayHandle(display_id) if display_id else None

    def picture(figure, save):
        forms = part("charts")(figure, save)
        return {form: packed(form, forms[form], True) for form in forms}

    def left_open(figure, save, again=False):
        if again or not any(figure is one for one in drawn):
            drawn.append(figure)
            result(picture(figure, save), False)

    display.__module__, display.__qualname__ = "builtins", "display"
    return bundle, shows_itself, display, result, sink, left_open, drawn
