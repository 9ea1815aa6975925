"""Programs with MCP libraries in them, for the environment of large clients; each speaks lines of JSON (``tests.support.house``)."""
