# expects: text/html application/json
import pandas as pd

frame = pd.DataFrame({"name": ["x", "y"], "share": [0.25, 0.75]})
frame.style.format({"share": "{:.0%}"}).bar(subset=["share"], color="lightgreen").set_caption("Shares")
