# How values look that have a form of their own, or are too large to be shown whole:
# tables, pictures, charts of plotly and altair, and containers of many items.
#
# kernel.py loads this with the first such value. Returns forms by their media types,
# or None where the value has to be asked itself. With no form for text, kernel.py
# makes one.


def forms():
    import sys
    from itertools import islice

    modules = sys.modules
    # Rows, cells, columns and characters of a table that go as data, and rows as HTML.
    ROWS, CELLS, COLUMNS, DATA, PAGE = 1000, 100000, 500, 4 << 20, 1000
    # Pixels of a picture as it is, and bytes of one.
    PIXELS, MOST = 1 << 24, 4 << 20
    # Items of a container that are shown, and characters of a text.
    ITEMS, TEXT = 600, 1 << 20

    def of(module, name):
        found = getattr(modules.get(module), name, None)
        return found if isinstance(found, type) else ()

    # Tables.

    def data_of(value, shape):
        try:
            text = value.to_json(orient="split", date_format="iso", default_handler=str)
        except Exception:
            text = value.astype(str).to_json(orient="split")
        return '%s,"shape":[%s]}' % (text[:-1], ",".join(str(size) for size in shape))

    def weight(head):
        # About how many characters the objects in there have.
        found = 0
        for at in range(head.shape[1] if head.ndim == 2 else 1):
            column = head.iloc[:, at] if head.ndim == 2 else head
            if str(column.dtype) in ("object", "str", "string"):
                found += sum(len(item) for item in column if hasattr(type(item), "__len__"))
        return found

    def bounded(pandas, value):
        # Who wants all rows shown means fewer than a million.
        options = []
        for name, most in (("display.max_rows", PAGE), ("display.max_columns", COLUMNS),
                           ("display.max_seq_items", PAGE)):
            set_to = pandas.get_option(name)
            if set_to is None or set_to > most:
                options += [name, most]
        return pandas.option_context(*options) if options else None

    def table(pandas, value):
        forms = {}
        context = bounded(pandas, value)
        if context is not None:
            context.__enter__()
        try:
            forms["text/plain"] = repr(value)[:TEXT]
            if hasattr(type(value), "_repr_html_"):
                html = value._repr_html_()
                if html is not None:
                    forms["text/html"] = html
        finally:
            if context is not None:
                context.__exit__(None, None, None)
        try:
            head, rows = value, ROWS
            if value.ndim == 2:
                head = value.iloc[:, :COLUMNS]
                rows = max(min(ROWS, CELLS // max(head.shape[1], 1)), 1)
            while rows:
                # Of cells that hold whole documents or lists there go fewer.
                first = head.iloc[:rows]
                if weight(first) <= DATA:
                    text = data_of(first, value.shape)
                    if len(text) <= DATA:
                        forms["application/json"] = text
                        break
                rows //= 4
        except Exception:
            # With labels or values that JSON has no words for.
            pass
        return forms

    def styled(pandas, value):
        most = pandas.get_option("styler.render.max_elements")
        with pandas.option_context("styler.render.max_elements", min(most, 20000)):
            html = value._repr_html_()
            latex = None if html else value._repr_latex_()
        forms = {"text/html": html} if html else {"text/latex": latex} if latex else {}
        forms.update((form, text) for form, text in table(pandas, value.data).items() if form not in forms)
        return forms

    # Pictures.

    def picture(value):
        import io

        told = {"text/plain": repr(value)}
        width, height = value.size
        if not width or not height:
            return told
        image, large = value, width * height > PIXELS
        if large:
            image = value.copy()
            image.thumbnail((4096, 4096))
        if image.mode in ("F", "I"):
            low, high = image.getextrema()
            if not 0 <= low <= 1 < high <= 255 and high > low:
                # Not in the units of grey: from its least to its most.
                scale = 255 / (high - low)
                image = image.point(lambda x: x * scale + -low * scale)
            image = image.convert("L")
        elif image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"):
            image = image.convert("RGB")
        elif image.mode in ("LA", "PA"):
            image = image.convert("RGBA")
        if not large:
            target = io.BytesIO()
            image.save(target, "PNG", compress_level=3)
            if target.tell() <= MOST:
                told["image/png"] = target.getvalue()
                return told
        # Photographs are smaller so; what can be seen through is seen on white.
        if image.mode in ("P", "RGBA"):
            image = image.convert("RGBA")
            ground = image.copy()
            ground.paste((255, 255, 255, 255), (0, 0) + image.size)
            ground.alpha_composite(image)
            image = ground
        if image.mode == "I;16":
            image = image.convert("I").point(lambda x: x * (1 / 256) + 0)
        image = image.convert("L" if image.mode in ("1", "L", "I") else "RGB")
        while True:
            target = io.BytesIO()
            image.save(target, "JPEG", quality=85)
            if target.tell() <= MOST:
                break
            image = image.reduce(2)
        told["image/jpeg"] = target.getvalue()
        return told

    # Charts as the libraries' own scripts draw them.

    def plotly(value):
        forms = {"application/vnd.plotly.v1+json": value.to_json()}
        forms["text/plain"] = "Figure(%d traces)" % len(value.data)
        return forms

    def altair(value):
        import json
        import re

        try:
            spec = value.to_dict()
        except Exception as error:
            # Such as too many rows: without a word nobody would know why there is none.
            sys.stderr.write("%s: %s\n" % (type(error).__name__, error))
            return {"text/plain": "<%s without a specification>" % type(value).__name__}
        version = re.search(r"/vega-lite/v(\d+)", str(spec.get("$schema", "")))
        form = "application/vnd.vegalite.v%s+json" % (version.group(1) if version else "6")
        return {form: json.dumps(spec, default=str), "text/plain": "<altair.%s>" % type(value).__name__}

    # Containers. A list of ten million numbers is shown by its first, its last, and how
    # many there are.

    def brackets(value):
        # By how it is shown: a class of its own with a `__repr__` shows itself.
        shown = type(value).__repr__
        name = type(value).__name__
        for base, plain in ((list, ("[", "]")), (tuple, ("(", ")")), (dict, ("{", "}")),
                            (set, ("{", "}")), (frozenset, ("frozenset({", "})"))):
            if shown is base.__repr__:
                if base in (set, frozenset) and type(value) is not base:
                    return name + "({", "})"
                return plain
        if type(value) in (type({}.keys()), type({}.values()), type({}.items())):
            return name + "([", "])"
        collections = modules.get("collections")
        if collections is not None:
            if shown in (collections.OrderedDict.__repr__, collections.Counter.__repr__,
                         collections.defaultdict.__repr__):
                return name + "({", "})"
            if shown is collections.deque.__repr__:
                return name + "([", "])"
        if "array" in modules and shown is modules["array"].array.__repr__:
            return "array('%s', [" % value.typecode, "])"
        return None

    def short(value, most, depth=0):
        if type(value) in (str, bytes, bytearray) and len(value) > (TEXT if not depth else 1000):
            keep = TEXT if not depth else 500
            kind = "characters" if type(value) is str else "bytes"
            return "%r… (%d %s)" % (value[:keep], len(value), kind)
        signs = brackets(value)
        if signs is None:
            return repr(value)
        if depth > 20:
            return signs[0] + "…" + signs[1]
        count = len(value)
        shown = min(count, most)
        tail = 0 if shown == count or isinstance(value, (set, frozenset)) else shown // 5
        each = max(most // max(shown, 1), 5)

        def word(item):
            if pairs:
                return "%s: %s" % (short(item[0], 5, depth + 1), short(item[1], each, depth + 1))
            return short(item, each, depth + 1)

        pairs = isinstance(value, dict)
        items = value.items() if pairs else value
        words = [word(item) for item in islice(items, shown - tail)]
        if shown < count:
            words.append("…")
        if tail:
            last = list(islice(reversed(items), tail))
            words += [word(item) for item in reversed(last)]
        inner = ", ".join(words)
        if isinstance(value, tuple) and count == 1:
            inner += ","
        return signs[0] + inner + signs[1] + (" (%d items)" % count if shown < count else "")

    def forms_of(value, heavy):
        pandas = modules.get("pandas")
        if pandas is not None:
            if isinstance(value, (of("pandas", "DataFrame"), of("pandas", "Series"))):
                return table(pandas, value)
            if isinstance(value, of("pandas.io.formats.style", "Styler")):
                return styled(pandas, value)
        if isinstance(value, of("PIL.Image", "Image")):
            return picture(value)
        if isinstance(value, of("plotly.basedatatypes", "BaseFigure")):
            return plotly(value)
        if isinstance(value, of("altair", "TopLevelMixin")):
            return altair(value)
        try:
            heavy = heavy or len(value) > 10000 and brackets(value) is not None
        except Exception:
            pass
        if heavy:
            return {"text/plain": short(value, ITEMS)}
        return None

    return forms_of
