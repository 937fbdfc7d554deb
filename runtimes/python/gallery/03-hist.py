# expects: image/png application/vnd.codex.chart+json:bar
import matplotlib.pyplot as plt
import numpy as np

values = np.random.default_rng(1).normal(170, 10, 1000)
plt.hist(values, bins=20, edgecolor="white")
plt.title("Heights")
plt.xlabel("Height (cm)")
plt.ylabel("People")
