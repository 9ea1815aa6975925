"""``doorward policy``: placeholder."""

from cyclopts import App

app = App(name="policy")
