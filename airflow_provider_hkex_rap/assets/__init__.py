"""Asset events: the URIs of the assets, and the announcement of the reports that landed."""
