# expects: image/png application/vnd.codex.chart+json:line
from datetime import date, timedelta

import matplotlib.dates as mdates
import matplotlib.pyplot as plt

days = [date(2024, 1, 1) + timedelta(days=n) for n in range(60)]
fig, ax = plt.subplots(figsize=(9, 4))
ax.plot(days, [n % 7 + n / 10 for n in range(60)], label="visits")
ax.xaxis.set_major_locator(mdates.WeekdayLocator())
ax.xaxis.set_major_formatter(mdates.DateFormatter("%d %b"))
fig.autofmt_xdate()
ax.legend()
plt.show()
