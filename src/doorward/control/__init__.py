"""The coordination server: what stock clients speak to (protocol note control.md).

::

    GET  /key                   our Noise key, outside Noise
    GET  /join/CODE             the page behind a link: which device waits, and how it is let in
    POST /machine/register      who may join                                    inside Noise, as everything below
    POST /machine/map           a lite update, or the stream of netmaps
    *    /machine/answer/ID     a node's answer to a question of ours
    *    /machine/...           what we do not serve (yet) says so

Inside Noise the connection has proven a machine key; a request claims a node key. Every endpoint checks that the two belong
together. ``Control`` is the service; each endpoint is one file.
"""

from doorward.control.app import Control

__all__ = ["Control"]
