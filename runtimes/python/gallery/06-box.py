# expects: image/png application/vnd.codex.chart+json:box_and_whisker
import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(3)
fig, ax = plt.subplots()
ax.boxplot([rng.normal(0, s, 200) for s in (1, 2, 3)], patch_artist=True)
ax.set_xticks([1, 2, 3], ["calm", "fair", "wild"])
ax.set_title("Spread")
plt.show()
