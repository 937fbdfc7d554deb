def charts():
    def forms(figure, save):
        import io

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

    return forms
