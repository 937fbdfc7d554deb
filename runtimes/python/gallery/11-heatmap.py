# expects: image/png application/vnd.codex.chart+json:unknown
import matplotlib.pyplot as plt
import numpy as np

fig, ax = plt.subplots()
image = ax.imshow(np.arange(25).reshape(5, 5), cmap="magma")
for i in range(5):
    for j in range(5):
        ax.text(j, i, i * 5 + j, ha="center", va="center", color="white")
fig.colorbar(image)
plt.show()
