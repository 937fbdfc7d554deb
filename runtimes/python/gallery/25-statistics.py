# expects: image/png application/vnd.codex.chart+json:superchart text/html application/json
%matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

rng = np.random.default_rng(6)
frame = pd.DataFrame({"before": rng.normal(50, 5, 100), "after": rng.normal(55, 8, 100)})
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
left.violinplot([frame["before"], frame["after"]])
left.set_title("Violins")
frame.boxplot(ax=right)
right.set_title("Boxes")
plt.show()
frame.describe()
