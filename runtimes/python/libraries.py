# What programs expect of a notebook around them: `IPython.display`, and libraries
# that show their values by themselves.
#
# kernel.py loads this when a program imports one of these. Where IPython is installed,
# its `display` is led to the session's; where not, the modules below stand for it.
# `get_ipython` gives None, as it does in every program outside of a notebook.


def libraries(display):
    import sys
    from types import ModuleType

    # What is made when it is imported and is not installed, and what is in it.
    STUBS = ("IPython", "IPython.core", "IPython.core.display", "IPython.core.display_functions",
             "IPython.core.getipython", "IPython.display",
             "matplotlib_inline", "matplotlib_inline.backend_inline")

    def text_of(given):
        return given.decode("utf-8", "replace") if isinstance(given, (bytes, bytearray)) else given

    def escaped(text):
        for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
            text = text.replace(sign, name)
        return text

    def fetched(url):
        from urllib.request import urlopen

        with urlopen(url) as answer:
            return answer.read()

    class DisplayHandle:
        """What `display(..., display_id=True)` gives: `update` shows a value anew."""

        def __init__(self, display_id=None):
            import uuid

            self.display_id = display_id if isinstance(display_id, str) else uuid.uuid4().hex

        def display(self, value, **options):
            display(value, **options)

        update = display

    class DisplayObject:
        """Data with the form that it is shown in."""

        FORM = None

        def __init__(self, data=None, url=None, filename=None, metadata=None):
            if data is not None and not isinstance(data, (str, bytes, bytearray, dict, list)):
                # A path, as a `pathlib.Path`.
                if hasattr(data, "__fspath__"):
                    data, filename = None, data
            if isinstance(data, str) and url is None and filename is None and type(self).is_place(data):
                if data.startswith(("http://", "https://")):
                    data, url = None, data
                else:
                    data, filename = None, data
            self.data, self.url, self.filename, self.metadata = data, url, filename, metadata or {}
            self.reload()

        @classmethod
        def is_place(cls, data):
            return False

        def reload(self):
            if self.filename is not None:
                with open(self.filename, "rb") as file:
                    self.data = text_of(file.read())
            elif self.url is not None:
                self.data = text_of(fetched(self.url))

        def bundle(self):
            return {self.FORM: text_of(self.data)}

        def _repr_mimebundle_(self, include=None, exclude=None):
            forms = self.bundle()
            forms.setdefault("text/plain", repr(self))
            return forms

        def __repr__(self):
            return "<IPython.core.display.%s object>" % type(self).__name__

    TextDisplayObject = DisplayObject

    class HTML(DisplayObject):
        FORM = "text/html"

        def __html__(self):
            return text_of(self.data)

    class Markdown(DisplayObject):
        FORM = "text/markdown"

    class Latex(DisplayObject):
        FORM = "text/latex"

    class Math(Latex):
        def bundle(self):
            return {self.FORM: "$\\displaystyle %s$" % text_of(self.data).strip("$")}

    class Pretty(DisplayObject):
        FORM = "text/plain"

    class SVG(DisplayObject):
        FORM = "image/svg+xml"

        @classmethod
        def is_place(cls, data):
            return "<" not in data

        def bundle(self):
            text = text_of(self.data)
            # Without what stands before it in a file of its own.
            return {self.FORM: text[max(text.find("<svg"), 0):]}

    class JSON(DisplayObject):
        FORM = "application/json"

        def __init__(self, data=None, url=None, filename=None, expanded=False, metadata=None, root="root", **_):
            DisplayObject.__init__(self, data, url, filename, metadata)

        def bundle(self):
            return {self.FORM: text_of(self.data)}

    class GeoJSON(JSON):
        FORM = "application/geo+json"

    class Javascript(DisplayObject):
        FORM = "application/javascript"

        def __init__(self, data=None, url=None, filename=None, lib=None, css=None):
            DisplayObject.__init__(self, data, url, filename)

    class Code(DisplayObject):
        def __init__(self, data=None, url=None, filename=None, language=None):
            self.language = language
            DisplayObject.__init__(self, data, url, filename)

        def bundle(self):
            text = text_of(self.data)
            return {"text/html": "<pre>%s</pre>" % escaped(text), "text/plain": text}

    class Image(DisplayObject):
        SIGNS = ((b"\x89PNG", "png"), (b"\xff\xd8", "jpeg"), (b"GIF8", "gif"), (b"RIFF", "webp"))

        def __init__(self, data=None, url=None, filename=None, format=None, embed=None,
                     width=None, height=None, retina=False, unconfined=False, metadata=None, alt=None):
            self.format, self.embed, self.width, self.height, self.alt = format, embed, width, height, alt
            DisplayObject.__init__(self, data, url, filename, metadata)

        @classmethod
        def is_place(cls, data):
            return len(data) < 4096 and "<svg" not in data

        def reload(self):
            if self.filename is not None:
                with open(self.filename, "rb") as file:
                    self.data = file.read()
            elif self.url is not None and self.embed:
                self.data = fetched(self.url)

        def bundle(self):
            if self.data is None:
                size = "".join(' %s="%s"' % (name, escaped(str(getattr(self, name))))
                               for name in ("width", "height", "alt") if getattr(self, name))
                return {"text/html": '<img src="%s"%s/>' % (escaped(self.url or ""), size)}
            if isinstance(self.data, str):
                return {"image/svg+xml": self.data} if "<svg" in self.data else {"image/png": self.data}
            for sign, form in self.SIGNS:
                if self.data.startswith(sign):
                    return {"image/" + form: bytes(self.data)}
            if self.data.lstrip()[:5] in (b"<?xml", b"<svg "):
                return {"image/svg+xml": text_of(self.data)}
            return {"image/" + (self.format or "png").lower().replace("jpg", "jpeg"): bytes(self.data)}

    class Media(DisplayObject):
        # Goes into the page itself, as there is no address that it could be had from.
        TAG, KIND = "audio", "audio/wav"

        def reload(self):
            if self.filename is not None:
                with open(self.filename, "rb") as file:
                    self.data = file.read()

        def bundle(self):
            import mimetypes

            name = self.filename if self.filename is not None else self.url
            place, form = self.url, name is not None and mimetypes.guess_type(str(name))[0]
            if self.data is not None:
                import base64

                data = self.data.encode("latin-1") if isinstance(self.data, str) else bytes(self.data)
                place = "data:%s;base64,%s" % (self.form or form or self.KIND, base64.b64encode(data).decode())
            return {"text/html": '<%s controls src="%s"%s></%s>' % (
                self.TAG, escaped(place or ""), " autoplay" if self.autoplay else "", self.TAG)}

    class Audio(Media):
        def __init__(self, data=None, filename=None, url=None, embed=None, rate=None,
                     autoplay=False, normalize=True, element_id=None):
            self.form, self.autoplay = None, autoplay
            if data is not None and not isinstance(data, (str, bytes, bytearray)):
                data = self.wave(data, rate, normalize)
            DisplayObject.__init__(self, data, url, filename)

        @classmethod
        def is_place(cls, data):
            return len(data) < 4096

        @staticmethod
        def wave(data, rate, normalize):
            import io
            import wave

            import numpy

            if rate is None:
                raise ValueError("rate must be given with samples")
            data = numpy.asarray(data, dtype=float)
            top = numpy.max(numpy.abs(data)) if normalize and data.size else 1
            data = (data.T / (top or 1) * 32767).astype("<i2")
            target = io.BytesIO()
            with wave.open(target, "wb") as file:
                file.setnchannels(data.shape[1] if data.ndim == 2 else 1)
                file.setsampwidth(2)
                file.setframerate(int(rate))
                file.writeframes(data.tobytes())
            return target.getvalue()

    class Video(Media):
        TAG, KIND = "video", "video/mp4"

        def __init__(self, data=None, url=None, filename=None, embed=False, mimetype=None,
                     width=None, height=None, html_attributes="controls"):
            self.form, self.autoplay = mimetype, False
            DisplayObject.__init__(self, data, url, filename)

        @classmethod
        def is_place(cls, data):
            return len(data) < 4096

    class IFrame:
        # As a link: a page in a page is nothing that a result could show.
        def __init__(self, src, width=None, height=None, extras=None, **params):
            self.src = src

        def _repr_html_(self):
            return '<a href="%s">%s</a>' % (escaped(str(self.src)), escaped(str(self.src)))

        def __repr__(self):
            return str(self.src)

    class YouTubeVideo(IFrame):
        def __init__(self, id, width=None, height=None, **params):
            IFrame.__init__(self, "https://www.youtube.com/watch?v=" + id)

    class FileLink(IFrame):
        def __init__(self, path, url_prefix="", result_html_prefix="", result_html_suffix="<br>"):
            IFrame.__init__(self, path)
            self.path = path

    class FileLinks:
        def __init__(self, path, recursive=True, **_):
            self.path = path

        def __repr__(self):
            import os

            return "\n".join(sorted(os.path.join(place, name)
                                    for place, _, names in os.walk(self.path) for name in names))

    def clear_output(wait=False):
        """Does nothing: what was shown has left already."""

    def update_display(value, display_id=None, **options):
        display(value, **options)

    def publish_display_data(data, metadata=None, source=None, transient=None, **options):
        display(data, raw=True)

    def set_matplotlib_formats(*formats, **options):
        """Does nothing: figures are shown as PNG."""

    def shower(form):
        def show(*values, **options):
            for value in values:
                display({form: value} if options.get("raw") else value, raw=bool(options.get("raw")))

        return show

    def get_ipython():
        return None

    shown = {"display": display, "DisplayHandle": DisplayHandle, "clear_output": clear_output,
             "update_display": update_display, "publish_display_data": publish_display_data}
    objects = {each.__name__: each for each in (
        DisplayObject, HTML, Markdown, Latex, Math, Pretty, SVG, JSON, GeoJSON, Javascript, Code, Image,
        Audio, Video, IFrame, YouTubeVideo, FileLink, FileLinks)}
    for each in objects.values():
        each.__module__, each.__qualname__ = "IPython.core.display", each.__name__
    objects["TextDisplayObject"] = TextDisplayObject
    objects["set_matplotlib_formats"] = set_matplotlib_formats
    for name, form in (("html", "text/html"), ("markdown", "text/markdown"), ("svg", "image/svg+xml"),
                       ("png", "image/png"), ("jpeg", "image/jpeg"), ("latex", "text/latex"),
                       ("json", "application/json"), ("javascript", "application/javascript"),
                       ("pretty", "text/plain"), ("pdf", "application/pdf")):
        objects["display_" + name] = shower(form)

    contents = {
        # Of a version that matplotlib and others ask nothing more of.
        "IPython": {"get_ipython": get_ipython, "version_info": (9, 0, 0, ""), "display": None},
        "IPython.core": {},
        "IPython.core.display": dict(objects, **shown),
        "IPython.core.display_functions": shown,
        "IPython.core.getipython": {"get_ipython": get_ipython},
        "IPython.display": dict(objects, **shown),
        "matplotlib_inline": {},
        "matplotlib_inline.backend_inline": {
            "set_matplotlib_formats": set_matplotlib_formats, "set_matplotlib_close": set_matplotlib_formats,
        },
    }

    class Loader:
        def create_module(self, spec):
            module = ModuleType(spec.name)
            module.__path__ = []
            return module

        def exec_module(self, module):
            name = module.__name__
            module.__doc__ = "Stands for what is not installed: shows values in a session."
            module.__dict__.update(contents[name])
            if name == "IPython":
                # As the real one, which has these when it is imported.
                import IPython.core.display
                import IPython.display
            elif name == "matplotlib_inline.backend_inline":
                # A backend by name, too.
                def lent(each):
                    from matplotlib.backends import backend_agg

                    return getattr(backend_agg, each)

                module.__getattr__ = lent

    def stub(name):
        # Where IPython is installed in part, it is not for us to fill.
        base, _, inner = name.partition(".")
        if name not in STUBS or (inner and getattr(sys.modules.get(base), "__path__", None) != []):
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, Loader(), is_package=True)

    # What is done to modules of others when they have been imported.

    def ipython(module):
        for name in shown:
            if hasattr(module, name) and name != "DisplayHandle":
                setattr(module, name, shown[name])

    def plotly(module):
        # Else it looks for a browser.
        def show(fig, *args, **kwargs):
            if isinstance(fig, dict):
                import plotly.graph_objects

                fig = plotly.graph_objects.Figure(fig)
            display(fig)

        show.__doc__ = module.show.__doc__
        module.show = show

    def pillow(module):
        # Else it looks for a program that shows pictures.
        def show(image, title=None, **options):
            display(image)
            return True

        show.__doc__ = module.show.__doc__
        module.show = show

    after = {
        "IPython.core.display_functions": ipython,
        "IPython.core.display": ipython,
        "plotly.io._renderers": plotly,
        "PIL.ImageShow": pillow,
    }

    def hooked(own, name, path, target):
        for finder in sys.meta_path:
            if finder is own or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        load = getattr(spec.loader, "exec_module", None)
        if load is None or isinstance(spec.loader, Loader):
            return spec

        def exec_module(module):
            load(module)
            try:
                after[name](module)
            except Exception:
                # A version that is made otherwise: it stays as it is.
                pass

        try:
            spec.loader.exec_module = exec_module
        except AttributeError:
            pass
        return spec

    hooked.stub = stub
    hooked.DisplayHandle = DisplayHandle
    return hooked
