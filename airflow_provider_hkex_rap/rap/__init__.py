"""The rules of the RAP technical guide as pure Python: no Airflow, no network."""
