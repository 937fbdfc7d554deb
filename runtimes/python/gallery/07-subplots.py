# expects: image/png application/vnd.codex.chart+json:superchart
import matplotlib.pyplot as plt
import numpy as np

x = np.arange(10)
fig, axes = plt.subplots(2, 2, figsize=(8, 6))
axes[0, 0].plot(x, x**2)
axes[0, 1].bar(x, x)
axes[1, 0].scatter(x, x[::-1])
axes[1, 1].step(x, np.sqrt(x))
for ax, name in zip(axes.flat, ["square", "bars", "points", "root"]):
    ax.set_title(name)
fig.suptitle("Four")
fig.tight_layout()
plt.show()
