"""Every system side by side over HTTP: the load, the systems, the judge, the figures."""
