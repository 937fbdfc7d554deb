# expects: text/html application/json text/plain
import pandas as pd

frame = pd.DataFrame({
    "city": ["Berlin", "Paris", "Rome"],
    "people": [3_700_000, 2_100_000, None],
    "founded": pd.to_datetime(["1237-01-01", "1500-01-01", None]),
})
frame
