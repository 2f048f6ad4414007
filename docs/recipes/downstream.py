"""Work with each new TP001 as soon as it has landed: count its rows.

The DAG runs after each landing of new reports of the folder. Its events name the business dates, and the
catalog gives the current reports of a date.
"""

from datetime import timedelta

from airflow.sdk import DAG, Asset, ObjectStoragePath, Variable, task

from airflow_provider_hkex_rap.notifications.alerts import alert

CUSTOMER, FOLDER, REPORT = "CXYZ", "DCASS", "TP001"
LANDED = Asset(f"hkex-rap://{CUSTOMER}/{FOLDER}")


@task
def count_rows(triggering_asset_events=None):
    """Return the number of rows of each new report, by its URI."""
    import csv

    from airflow_provider_hkex_rap.lake.catalog import landed_reports

    days = [day for event in triggering_asset_events[LANDED] for day in event.extra["days"]]
    rows = {}
    for day in days:
        if REPORT not in day["reports"]:
            continue
        for report in landed_reports(
            Variable.get("hkex_rap_lake"),
            CUSTOMER,
            folder=FOLDER,
            report=REPORT,
            business_date=day["business_date"],
        ):
            with ObjectStoragePath(report.uri).open("r") as file:
                rows[report.uri] = sum(1 for _ in csv.DictReader(file))
    return rows


with DAG(
    "rows_of_tp001",
    schedule=[LANDED],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "on_failure_callback": alert},
    on_failure_callback=alert,
):
    count_rows()
