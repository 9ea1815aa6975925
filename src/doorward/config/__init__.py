"""What must be known before the store opens, typed. Everything else lives in the store.

Where a setting comes from, the last that speaks wins:

1. the default that stands in the type below;
2. a TOML file: the one named, else ``doorward.toml`` in the data directory, if it is there;
3. the environment: ``DOORWARD_`` and the setting's path in capitals joined by ``_``, so that ``relay.enabled`` is
   ``DOORWARD_RELAY_ENABLED``. Text is taken as it stands, ``true`` and ``false`` and numbers as in TOML, the members
   of a list are separated by commas, and an empty variable counts as not set;
4. the command line.

A key that does not exist, a value of the wrong type and a pair of settings that cannot both hold are refused, each with
the place it was written at and what to do. Relative paths are seen from the file they stand in, else from the working
directory. ``reference`` makes the page about settings out of these types.
"""

from doorward.config.check import is_dns_name
from doorward.config.folders import (
    default_data_dir,
    find_socket,
    load_ports,
    save_ports,
    save_private,
    socket_path,
)
from doorward.config.load import FILE_NAME, decode, encode, load, unknown_variables
from doorward.config.settings import ConfigError, Leaf, Ports, Settings, leaves, reference, split_listen

__all__ = [
    "FILE_NAME",
    "ConfigError",
    "Leaf",
    "Ports",
    "Settings",
    "decode",
    "default_data_dir",
    "encode",
    "find_socket",
    "is_dns_name",
    "leaves",
    "load",
    "load_ports",
    "reference",
    "save_ports",
    "save_private",
    "socket_path",
    "split_listen",
    "unknown_variables",
]
