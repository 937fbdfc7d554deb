# expects: image/png application/vnd.codex.chart+json:unknown
import matplotlib.pyplot as plt
import numpy as np

x, y = np.meshgrid(np.linspace(-3, 3, 40), np.linspace(-3, 3, 40))
fig = plt.figure()
ax = fig.add_subplot(projection="3d")
ax.plot_surface(x, y, np.sin(np.hypot(x, y)), cmap="coolwarm")
ax.set_title("Ripples")
plt.show()
