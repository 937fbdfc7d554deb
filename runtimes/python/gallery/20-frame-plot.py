# expects: image/png application/vnd.codex.chart+json:line
import numpy as np
import pandas as pd

index = pd.date_range("2024-01-01", periods=90)
rng = np.random.default_rng(5)
frame = pd.DataFrame(rng.normal(size=(90, 3)).cumsum(axis=0), index=index, columns=["a", "b", "c"])
frame.plot(title="Walks", figsize=(9, 4))
