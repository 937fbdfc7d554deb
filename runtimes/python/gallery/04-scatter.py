# expects: image/png application/vnd.codex.chart+json:scatter
import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(2)
x = rng.random(80)
y = x + rng.normal(0, 0.1, 80)
plt.scatter(x, y, c=y, cmap="viridis", label="measured")
plt.colorbar(label="y")
plt.plot([0, 1], [0, 1], color="gray", label="ideal")
plt.legend()
