"""Loaded by every Python that has this folder on PYTHONPATH: doorward writes nothing of what it observes before an hour is over.

What is in its database until then was written at once.
"""

from doorward.tailnet import observe

observe.FLUSH_INTERVAL = 3600.0
