from airflow.sdk import DAG, Asset, task

DCASS = Asset("hkex-rap://CXYZ/DCASS")  # your DCASS customer code, and the folder

with DAG("after_dcass", schedule=[DCASS]) as dag:

    @task
    def new_reports(triggering_asset_events=None):
        days = [day for event in triggering_asset_events[DCASS] for day in event.extra["days"]]
        return {day["business_date"]: day["reports"] for day in days}

    new_reports()
