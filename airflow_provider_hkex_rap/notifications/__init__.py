"""Alerts: structured records of failures and warnings, and the notifiers that get them."""
