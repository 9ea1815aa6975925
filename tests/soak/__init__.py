"""A real server under churn for as long as one likes: ``python -m tests.soak --minutes 60``, or ``make soak``.

What goes on is in ``churn``, what is measured and what is allowed in ``measured``. The short form is a test of its own.
"""
