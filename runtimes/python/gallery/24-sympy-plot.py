# expects: image/png application/vnd.codex.chart+json:line
from sympy import cos, plot, sin, symbols

x = symbols("x")
plot(sin(x), cos(2 * x), (x, -5, 5), title="Both", legend=True, show=True)
