# expects: image/png application/vnd.codex.chart+json:box_and_whisker
import numpy as np
import pandas as pd
import seaborn as sns

rng = np.random.default_rng(4)
data = pd.DataFrame({
    "species": np.repeat(["oak", "elm", "ash"], 40),
    "height": np.concatenate([rng.normal(m, 1.5, 40) for m in (12, 9, 15)]),
    "girth": rng.normal(2, 0.4, 120),
    "wet": np.tile(["yes", "no"], 60),
})

sns.boxplot(data=data, x="species", y="height", hue="wet")
