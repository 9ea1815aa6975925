"""doorward: keyless access for your own tailnet.

Start with ``docs/ARCHITECTURE.md``. The layers, lowest first: ``protocol`` and ``policy`` are pure; ``store`` and
``tailnet`` hold the truth; ``control``, ``relay`` and their siblings are the services; ``server`` wires them together.
"""

__version__ = "0.1.0"
