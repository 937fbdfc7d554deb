# expects: image/png application/vnd.codex.chart+json:superchart
import matplotlib.pyplot as plt

months = ["Jan", "Feb", "Mar", "Apr"]
fig, rain = plt.subplots()
rain.bar(months, [60, 50, 40, 30], color="tab:blue", alpha=0.5)
rain.set_ylabel("Rain (mm)")
warmth = rain.twinx()
warmth.plot(months, [2, 4, 9, 13], color="tab:red", marker="o")
warmth.set_ylabel("Temperature (°C)")
plt.title("Climate")
plt.show()
