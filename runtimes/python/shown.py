# Results of a program that runs once: what it shows by `display`, and its figures, are
# left in a file that the server reads when all is over. In a session kernel.py does this.
#
# sitecustomize.py loads it with the first of them. What lies in the file is only a
# program's word. Must never keep a program from going on: where the file can't be
# written, nothing is shown.


def shown(here):
    import os

    # Of frames, as the server reads them.
    HEAD = 9
    place = os.path.join(os.environ.get("TMPDIR", "/tmp"), ".codex-results")
    TEXT = 1 << 20
    parts, state = {}, {"pid": os.getpid(), "sink": None}

    def utf8(value):
        return value.encode("utf-8", "replace")

    def cut(value):
        if len(value) <= TEXT:
            return value
        return value[:TEXT] + "… [%d characters omitted]" % (len(value) - TEXT)

    def part(name, *given):
        if name not in parts:
            scope = {"__name__": name}
            path = os.path.join(here, name + ".py")
            with open(path, "rb") as file:
                exec(compile(file.read(), path, "exec", dont_inherit=True), scope)
            parts[name] = scope[name](*given)
        return parts[name]

    def send(what, *fields):
        body = b"".join(len(field).to_bytes(4, "little") + field for field in fields)
        frame = (len(body) + HEAD).to_bytes(4, "little") + bytes((what,)) + bytes(8) + body
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(place, flags, 0o600)
            try:
                # In one piece, also where threads show things side by side.
                os.write(file, frame)
            finally:
                os.close(file)
        except OSError:
            pass

    bundle, _, display, result, _, _, drawn = part("results", state, part, send, utf8, cut, os.getpid)

    class Shown:
        pass

    def figure(which, picture):
        # A figure that is a file already: shown from that, and as data.
        if any(which is one for one in drawn) or os.getpid() != state["pid"]:
            return
        drawn.append(which)
        with open(picture, "rb") as file:
            content = file.read()
        import binascii

        forms = {
            "image/png": binascii.b2a_base64(content, newline=False),
            "text/plain": utf8(cut(repr(which))),
        }
        data = part("charts").told(which)
        if data is not None:
            forms["application/vnd.codex.chart+json"] = utf8(data)
        result(forms, False)

    Shown.display, Shown.figure, Shown.state = staticmethod(display), staticmethod(figure), state
    Shown.libraries = staticmethod(lambda: part("libraries", display))
    return Shown
