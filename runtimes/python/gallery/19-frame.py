# expects: text/html application/json text/plain
import pandas as pd

frame = pd.DataFrame({
    "city": ["Berlin", "Paris", "Rome"],
    "people": [3_700_000, 2_100_000, None],
    "since": pd.to_datetime(["1871-01-18", "1789-07-14", None]),
})
frame
