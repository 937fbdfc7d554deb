# A figure of matplotlib as a picture, and what it shows as data: read off its axes once
# it is drawn, since only then all has its place and ticks have their labels.
#
# kernel.py loads this with the first figure. What is not understood is a chart of type
# "unknown"; whatever fails in here costs the data alone, and never the picture.


def charts():
    import io
    import json
    import math
    import re
    import sys

    # Points of all charts of a figure, series and ticks of one, and charts of one figure.
    POINTS, SERIES, TICKS, AXES = 10000, 500, 100, 100
    modules = sys.modules

    def of(module, name):
        found = getattr(modules.get(module), name, None)
        return found if isinstance(found, type) else ()

    # Values, as JSON has them.

    def number(value):
        value = float(value)
        return value if math.isfinite(value) else None

    def iso(moment):
        if getattr(moment, "tzinfo", None) is not None:
            moment = moment.replace(tzinfo=None)
        return moment.isoformat()

    def plain(value):
        # Of what a program plotted, before matplotlib made numbers of it.
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (bool, int)):
            return int(value)
        if hasattr(value, "to_timestamp"):
            value = value.to_timestamp()
        if hasattr(value, "isoformat"):
            # What pandas has for no time is not equal to itself.
            return iso(value) if value == value else None
        return number(value)

    def words(label):
        # Powers, without what only matplotlib's own formulas need.
        found = re.match(r"\$\\mathdefault\{(.*)\}\$$", label)
        return found.group(1) if found else label

    class Scale:
        # An axis, and what its numbers mean.
        def __init__(self, axis, freq=None):
            self.axis, self.names, self.freq = axis, None, freq
            get = getattr(axis, "get_converter", None)
            converter = get() if get else getattr(axis, "converter", None)
            formatter = axis.get_major_formatter()
            dates = [of("matplotlib.dates", name) for name in ("DateFormatter", "AutoDateFormatter", "ConciseDateFormatter")]
            kinds = [of("matplotlib.dates", name) for name in ("DateConverter", "ConciseDateConverter", "_SwitchableDateConverter")]
            mapping = getattr(axis.units, "_mapping", None)
            if mapping and isinstance(converter, of("matplotlib.category", "StrCategoryConverter")):
                self.kind = "categorical"
                self.names = {place: name for name, place in mapping.items()}
            elif freq is not None or isinstance(converter, tuple(kinds)) or isinstance(formatter, tuple(dates)):
                self.kind = "datetime"
            else:
                self.kind = axis.get_scale()
            # Labels that a program gave to places; those of numbers are numbers again.
            self.fixed = self.names is not None or isinstance(
                formatter, (of("matplotlib.ticker", "FixedFormatter"), of("matplotlib.ticker", "FuncFormatter")))

        def say(self, value):
            value = number(value)
            if value is None:
                return None
            if self.kind == "datetime":
                try:
                    if self.freq is not None:
                        period = modules["pandas"].Period(ordinal=int(round(value)), freq=self.freq)
                        return iso(period.to_timestamp())
                    return iso(modules["matplotlib.dates"].num2date(value))
                except Exception:
                    return value
            if self.names is not None:
                return self.names.get(int(round(value)), value)
            return value

        def ticks(self):
            if not hasattr(self, "found"):
                low, high = sorted(self.axis.get_view_interval())
                places = self.axis.get_ticklocs()
                labels = [words(label.get_text()) for label in self.axis.get_ticklabels()]
                rim = (high - low) * 1e-9
                self.found = [(float("%.12g" % place), label) for place, label in zip(places, labels)
                              if low - rim <= place <= high + rim][:TICKS]
            return self.found

        def label(self, value):
            # What stands at this place of the axis.
            if self.names is not None or self.kind == "datetime":
                said = str(self.say(value))
                return said[:-9] if said.endswith("T00:00:00") else said
            ticks = [(place, label) for place, label in self.ticks() if label] if self.fixed else ()
            if ticks:
                place, label = min(ticks, key=lambda tick: abs(tick[0] - value))
                gaps = [abs(b[0] - a[0]) for a, b in zip(ticks, ticks[1:])]
                if abs(place - value) <= (min(gaps) / 2 if gaps else 1):
                    return label
            return "%g" % value

    def thinned(count, most):
        return max(-(-count // max(most, 1)), 1)

    def values(data, drawn, scale, step):
        # As the program gave them, where that says more than the numbers drawn.
        import numpy

        try:
            array = numpy.ma.asarray(data)
        except Exception:
            array = drawn
        if array.shape != drawn.shape or scale.freq is not None:
            array = drawn
        array = array[::step]
        if array.dtype.kind == "M":
            return [None if value == "NaT" else value for value in
                    numpy.datetime_as_string(numpy.asarray(array), unit="s").tolist()]
        if array.dtype.kind in "OUS":
            try:
                return [plain(value) for value in array.tolist()]
            except Exception:
                array = drawn[::step]
        array = numpy.ma.filled(array.astype(float), math.nan) if array.dtype.kind not in "iu" else array
        if scale.kind in ("datetime", "categorical"):
            return [scale.say(value) for value in array]
        return [value if not isinstance(value, float) or math.isfinite(value) else None for value in array.tolist()]

    def name_of(artist):
        name = str(artist.get_label())
        return "" if name.startswith("_") else name

    def shade(color):
        try:
            found = modules["matplotlib.colors"].to_rgba(color)
            return tuple(round(float(part), 3) for part in found[:3])
        except Exception:
            return None

    def legend_of(axes):
        # Which names a legend gives to colours, as seaborn's do that name nothing else.
        legend, names = axes.get_legend(), {}
        if legend is not None:
            handles = getattr(legend, "legend_handles", None) or getattr(legend, "legendHandles", ())
            for handle, text in zip(handles, legend.get_texts()):
                for name in ("get_facecolor", "get_color"):
                    if hasattr(handle, name):
                        color = getattr(handle, name)()
                        # Of collections there may be many.
                        color = color[0] if getattr(color, "ndim", 1) == 2 and len(color) else color
                        if shade(color) is not None:
                            names.setdefault(shade(color), text.get_text())
                            break
                else:
                    continue
                if name == "get_color" and hasattr(handle, "get_markerfacecolor"):
                    names.setdefault(shade(handle.get_markerfacecolor()), text.get_text())
        return names

    # Charts, each from the artists that it is made of.

    def series(axes, lines, clouds, x, y, most):
        counts = [len(line.get_xdata(orig=False)) for line in lines]
        counts += [len(cloud.get_offsets()) for cloud in clouds]
        step, names = thinned(sum(counts), most), legend_of(axes)
        elements = []
        for line in lines[:SERIES]:
            drawn = line.get_xydata().T
            points = zip(values(line.get_xdata(orig=True), drawn[0], x, step),
                         values(line.get_ydata(orig=True), drawn[1], y, step))
            name = name_of(line) or names.get(shade(line.get_color()), "")
            elements.append({"label": name, "points": [list(point) for point in points]})
        for cloud in clouds[:SERIES]:
            elements += groups(axes, cloud, x, y, step)
        return elements, step > 1 or max(len(lines), len(clouds)) > SERIES

    def groups(axes, cloud, x, y, step):
        # Of one cloud, whose groups a legend tells by their colours, as seaborn's does.
        import numpy

        places = numpy.ma.filled(numpy.ma.asarray(cloud.get_offsets(), dtype=float), math.nan)
        points = [[x.say(one), y.say(other)] for one, other in places[::step]]
        colors = cloud.get_facecolors()
        names = legend_of(axes)
        if not names or len(colors) != len(places) or name_of(cloud):
            return [{"label": name_of(cloud), "points": points}]
        found = {}
        for color, point in zip(colors[::step], points):
            found.setdefault(names.get(shade(color), ""), []).append(point)
        if "" in found:
            return [{"label": "", "points": points}]
        return [{"label": name, "points": found[name]} for name in sorted(found)]

    def bars(axes, containers, x, y, most):
        names = legend_of(axes)
        step = thinned(sum(len(container.patches) for container in containers), most)
        elements = []
        for container in containers[:SERIES]:
            flat = getattr(container, "orientation", None) == "horizontal"
            scale = y if flat else x
            edges = []
            for patch in container.patches:
                at = patch.get_y() if flat else patch.get_x()
                size = patch.get_height() if flat else patch.get_width()
                edges.append((at, at + size, patch.get_width() if flat else patch.get_height()))
            # Bars of a histogram touch each other, and stand for what is between.
            touch = not scale.fixed and len(edges) > 1 and all(
                abs(one[1] - other[0]) <= 1e-6 * max(abs(one[1] - one[0]), 1e-300) + 1e-12 * abs(one[1])
                for one, other in zip(edges, edges[1:]))
            group = name_of(container) or names.get(shade(container.patches[0].get_facecolor()), "")
            for low, high, value in edges[::step]:
                if touch and scale.kind != "datetime":
                    label = "%g to %g" % (low, high)
                else:
                    label = scale.label((low + high) / 2)
                elements.append({"label": label, "group": group, "value": number(value)})
        return elements, step > 1 or len(containers) > SERIES

    def slices(wedges):
        return [{"label": name_of(wedge), "angle": number(round(abs(wedge.theta2 - wedge.theta1), 4)),
                 "radius": number(wedge.r)} for wedge in wedges[:POINTS]]

    def two(line):
        x, y = line.get_xydata().T
        return [(float(x[0]), float(y[0])), (float(x[1]), float(y[1]))] if len(x) == 2 else None

    def box(whiskers, rest, fliers, x, y):
        # From the two lines that go out from a box, those across, and what lies beyond.
        ends = [two(line) for line in whiskers]
        crosses = [two(line) for line in rest]
        if None in ends or None in crosses or not crosses:
            return None
        for at, scale in ((0, x), (1, y)):
            middle = ends[0][0][at]
            near = 1e-6 * max(abs(middle), 1)
            # Not a line of a program's own that happens to be straight.
            if any(abs(end[at] - middle) > near for pair in ends for end in pair):
                continue
            if any(abs((one[at] + other[at]) / 2 - middle) > near or abs(one[1 - at] - other[1 - at]) > 1e-9 * max(abs(one[1 - at]), 1)
                   for one, other in crosses):
                continue
            out = []
            if fliers is not None:
                out = [number(value) for value in fliers.get_xydata()[:, 1 - at][:1000]]
            low, first, third, high = (pair[end][1 - at] for pair, end in (
                (ends[0], 1), (ends[0], 0), (ends[1], 0), (ends[1], 1)))
            median = crosses[2 if len(crosses) > 2 else 0][0][1 - at]
            if not low <= first <= median <= third <= high:
                continue
            return {
                "label": scale.label(middle), "min": number(low), "first_quartile": number(first),
                "median": number(median), "third_quartile": number(third), "max": number(high),
                "outliers": out,
            }
        return None

    def boxes(axes, lines, x, y):
        elements, names = [], legend_of(axes)
        for container in axes.containers:
            if type(container).__name__ == "BoxPlotContainer":
                for at, median in enumerate(container.medians):
                    fliers = container.fliers[at] if at < len(container.fliers) else None
                    caps = container.caps[2 * at:2 * at + 2]
                    found = box(container.whiskers[2 * at:2 * at + 2], caps + [median] if len(caps) == 2 else [median],
                                fliers, x, y)
                    if found:
                        face = getattr(container.boxes[at], "get_facecolor", None) if at < len(container.boxes) else None
                        group = names.get(shade(face()), "") if face else ""
                        if group:
                            found["label"] = "%s, %s" % (found["label"], group)
                        elements.append(found)
        if elements:
            return elements
        at = 0
        lines = [line for line in lines if not name_of(line)]
        while at + 2 < len(lines) and len(elements) < POINTS:
            if len(lines[at].get_xdata()) != 2 or len(lines[at + 1].get_xdata()) != 2:
                at += 1
                continue
            end = at + 2
            while end < len(lines) and end < at + 6 and len(lines[end].get_xdata()) == 2 \
                    and lines[end].get_linestyle() != "None" and not starts(lines, end, at):
                end += 1
            marks = end
            while marks < len(lines) and marks < end + 2 and lines[marks].get_linestyle() == "None":
                marks += 1
            found = box(lines[at:at + 2], lines[at + 2:end], lines[marks - 1] if marks > end else None, x, y)
            if found:
                elements.append(found)
                at = marks
            else:
                at += 1
        return elements

    def starts(lines, at, before):
        # Whether the next box begins here: with a line along, not across.
        return at - before > 2 and lines[at].get_xydata()[:, 0].tolist().count(lines[at].get_xydata()[0, 0]) == 2 \
            and lines[before].get_xydata()[0, 0] != lines[at].get_xydata()[0, 0] \
            and lines[before].get_xydata()[0, 0] == lines[before].get_xydata()[1, 0]

    def unit(label):
        found = re.search(r"[(\[]([^()\[\]]+)[)\]]\s*$", label)
        return found.group(1) if found else None

    def chart(axes, most):
        title = axes.get_title() or axes.get_title("left") or axes.get_title("right")
        told = {"type": "unknown", "title": title, "elements": []}
        if hasattr(axes, "get_zlim"):
            told.update(x_label=axes.get_xlabel(), y_label=axes.get_ylabel(), z_label=axes.get_zlabel())
            return told
        wedges = [patch for patch in axes.patches if isinstance(patch, of("matplotlib.patches", "Wedge"))]
        containers = [one for one in axes.containers
                      if isinstance(one, of("matplotlib.container", "BarContainer")) and len(one.patches)]
        if wedges and not containers:
            told.update(type="pie", elements=slices(wedges))
            return told
        freq = getattr(axes, "freq", None)
        x, y = Scale(axes.xaxis, freq), Scale(axes.yaxis)
        told.update(
            x_label=axes.get_xlabel(), y_label=axes.get_ylabel(),
            x_unit=unit(axes.get_xlabel()), y_unit=unit(axes.get_ylabel()),
            x_ticks=[x.say(place) for place, _ in x.ticks()], x_tick_labels=[label for _, label in x.ticks()],
            y_ticks=[y.say(place) for place, _ in y.ticks()], y_tick_labels=[label for _, label in y.ticks()],
            x_scale=x.kind, y_scale=y.kind,
        )
        aside = set()
        for container in axes.containers:
            if isinstance(container, of("matplotlib.container", "ErrorbarContainer")):
                aside.update(id(line) for line in container[1])
            elif isinstance(container, of("matplotlib.container", "StemContainer")):
                aside.add(id(container.baseline))
        # Lines of the data: not such as go from rim to rim, or stand in a legend.
        lines = [line for line in axes.lines if line.get_transform() == axes.transData
                 and id(line) not in aside and line.get_visible()]
        filled = [line for line in lines if len(line.get_xdata(orig=False))]
        clouds = [one for one in axes.collections if isinstance(one, of("matplotlib.collections", "PathCollection"))
                  and one.get_visible() and len(one.get_offsets())]
        found = [] if containers else boxes(axes, lines, x, y)
        thin = False
        if any(isinstance(one, of("matplotlib.collections", "PolyCollection")) for one in axes.collections) \
                and not clouds and all(len(line.get_xdata()) <= 2 and not name_of(line) for line in filled):
            # The marks in a violin, which say little without its shape.
            filled = []
        if found:
            told.update(type="box_and_whisker", elements=found)
        elif containers:
            told["type"] = "bar"
            told["elements"], thin = bars(axes, containers, x, y, most)
        elif filled or clouds:
            marks = [line for line in filled if line.get_linestyle() in ("None", "", " ")]
            told["type"] = "scatter" if clouds or len(marks) == len(filled) else "line"
            told["elements"], thin = series(axes, filled, clouds, x, y, most)
        if thin:
            told["truncated"] = True
        return told

    def data_of(figure):
        shown = [axes for axes in figure.axes
                 if axes.get_visible() and axes.get_label() != "<colorbar>" and (
                     axes.lines or axes.collections or axes.patches or axes.images or axes.containers)]
        if not shown:
            return None
        title = getattr(figure, "_suptitle", None)
        title = title.get_text() if title is not None else ""
        told = [chart(axes, POINTS // len(shown[:AXES])) for axes in shown[:AXES]]
        if len(told) > 1:
            return {"type": "superchart", "title": title, "elements": told}
        told[0]["title"] = told[0]["title"] or title
        return told[0]

    def forms(figure, save):
        import warnings

        # There may be no line of the program's to warn of, as at a cell's end.
        with warnings.catch_warnings(record=True) as caught:
            found = drawn(figure, save)
        for line in dict.fromkeys("%s: %s\n" % (one.category.__name__, one.message) for one in caught):
            sys.stderr.write(line)
        data = told(figure)
        if data is not None:
            found["application/vnd.codex.chart+json"] = data
        return found

    def told(figure):
        # What a figure that was drawn shows, as JSON; None where that is not known.
        try:
            data = data_of(figure)
            return None if data is None else json.dumps(data, allow_nan=False)
        except Exception:
            # A figure that is made otherwise than is known here.
            return None

    def drawn(figure, save):
        dpi = figure.dpi
        width, height = figure.get_size_inches()
        # A picture of more pixels takes minutes and says no more.
        most = (16e6 / max(width * height, 1e-6)) ** 0.5
        options = {"format": "png", "dpi": min(dpi, most)}
        try:
            box = figure.get_tightbbox()
            if box.width * box.height <= 4 * width * height and dpi <= most:
                options["bbox_inches"] = "tight"
        except Exception:
            pass
        target = io.BytesIO()
        save(figure, target, **options)
        return {"image/png": target.getvalue(), "text/plain": repr(figure)}

    forms.told = told
    return forms
