# Gives back the figures of matplotlib that a program shows, or that are open when
# it ends and were not saved: as figure-1.png, figure-2.png and so on in its
# workspace. Run by sitecustomize.py when a backend of matplotlib is looked for,
# since no program that plots comes by without one. Must never keep a program from
# plotting: where matplotlib is not as expected, all stays as it is. Each is shown as a
# result, too.
#
# In a session kernel.py runs it, and takes the figures itself: those that a cell shows
# or leaves open, saved or not.


def figures(workspace, take=None, shown_by=None):
    import atexit
    import os
    import sys
    import weakref

    pyplot = sys.modules.get("matplotlib.pyplot")
    figure_class = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if figure_class is None or helpers is None or not hasattr(pyplot, "show"):
        return False
    # Figures that one picture is enough of.
    MOST = 20
    save = figure_class.savefig
    # What was saved, by the program or here, and what was shown last.
    saved = weakref.WeakSet()
    shown = []
    given = []

    def savefig(self, *args, **kwargs):
        # Who saves after `show` means the figure that it ended, as there is no other.
        if shown and not self.axes:
            self = shown[-1]
        saved.add(self)
        return save(self, *args, **kwargs)

    def give(figure):
        if not (figure.axes or figure.texts or figure.images):
            return
        if take is not None:
            return take(figure, save)
        if figure in saved:
            return
        number = len(given) + 1
        if number > MOST:
            return
        while os.path.lexists(os.path.join(workspace, "figure-%d.png" % number)):
            number += 1
        given.append(number)
        saved.add(figure)
        picture = os.path.join(workspace, "figure-%d.png" % number)
        save(figure, picture, format="png")
        if shown_by is not None:
            shown_by().figure(figure, picture)

    def show(*args, **kwargs):
        if take is not None:
            shown[:] = [manager.canvas.figure for manager in helpers.Gcf.get_all_fig_managers()]
            return rest()
        for manager in helpers.Gcf.get_all_fig_managers():
            give(manager.canvas.figure)
            shown[:] = [manager.canvas.figure]
        # As when somebody has closed the windows: what comes next is a new figure.
        helpers.Gcf.destroy_all()

    def rest():
        managers = helpers.Gcf.get_all_fig_managers()
        if take is not None:
            # Before they are drawn: one that can't be would come again with each cell.
            helpers.Gcf.destroy_all()
        for manager in managers:
            give(manager.canvas.figure)

    def warn_once(module):
        # One warning for all characters that no font has, and not one for each.
        warn = getattr(module, "warn_on_missing_glyph", None)
        if warn is None:
            return
        told = []

        def warn_on_missing_glyph(codepoint, *fonts):
            if not told:
                told.append(codepoint)
                warn(codepoint, *fonts)

        module.warn_on_missing_glyph = warn_on_missing_glyph

    def log_once(logging):
        # One line for the families of fonts that there are not, and not two for each text.
        if logging is None:
            return
        told = []

        def missing(record):
            if not str(record.msg).startswith("findfont: ") or record.levelno != logging.WARNING:
                return True
            told.append(None)
            return len(told) == 1

        logging.getLogger("matplotlib.font_manager").addFilter(missing)

    for ours, theirs in ((savefig, save), (show, pyplot.show)):
        for name in ("__doc__", "__module__", "__qualname__"):
            setattr(ours, name, getattr(theirs, name))
        ours.__wrapped__ = theirs
    figure_class.savefig = savefig
    pyplot.show = show
    if take is not None:
        figure_class.show = lambda self, warn=True: take(self, save, True)
    warn_once(sys.modules.get("matplotlib._text_helpers"))
    log_once(sys.modules.get("logging"))
    if take is not None:
        return rest
    # Before those of matplotlib and the program: the last that comes is run first.
    atexit.register(rest)
    return True
