# expects: image/png application/vnd.codex.chart+json:pie
import matplotlib.pyplot as plt

plt.pie([45, 30, 25], labels=["Rent", "Food", "Other"], autopct="%1.1f%%", startangle=90)
plt.title("Budget")
plt.show()
