"""The Airflow plugin of the provider."""
