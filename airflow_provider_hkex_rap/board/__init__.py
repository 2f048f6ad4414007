"""The board: a page in Airflow's UI that shows which reports have landed, and how long the keys last."""
