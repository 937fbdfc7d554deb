# expects: text/html application/json image/png application/vnd.codex.chart+json:bar
import pandas as pd

sales = pd.DataFrame({
    "region": ["north", "south", "north", "south", "east"],
    "product": ["tea", "tea", "rum", "rum", "tea"],
    "amount": [5, 3, 8, 2, 7],
})
totals = sales.pivot_table(index="region", columns="product", values="amount", aggfunc="sum", fill_value=0)
totals.plot.barh()
totals
