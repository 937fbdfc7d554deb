# expects: image/png application/vnd.codex.chart+json:line
import matplotlib.pyplot as plt
import numpy as np

x = np.array([1, 10, 100, 1000])
plt.errorbar(x, x**0.5, yerr=x**0.25, capsize=4, fmt="o-", label="runs")
plt.xscale("log")
plt.yscale("log")
plt.axhline(10, color="gray", linestyle=":")
plt.annotate("limit", (2, 10.5))
plt.legend()
