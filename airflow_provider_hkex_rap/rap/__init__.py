"""The RAP technical guide as code: pure rules, without Airflow and without network."""
