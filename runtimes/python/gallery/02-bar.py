# expects: image/png application/vnd.codex.chart+json:bar
import matplotlib.pyplot as plt

fruits = ["apples", "pears", "plums"]
plt.bar(fruits, [40, 25, 60], label="2023")
plt.bar(fruits, [10, 15, 5], bottom=[40, 25, 60], label="2024")
plt.title("Harvest")
plt.ylabel("Weight (t)")
plt.legend()
