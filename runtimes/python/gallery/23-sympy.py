# expects: text/latex text/plain
from sympy import Integral, exp, oo, symbols

x = symbols("x")
Integral(exp(-x**2), (x, -oo, oo))
