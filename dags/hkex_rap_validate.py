"""Check the CSV reports that have landed, and write each report of a day as one Parquet file.

Each landing of new reports triggers this DAG. Set ``CUSTOMER`` to your DCASS customer code, the Variable
``hkex_rap_lake`` to the root of the lake, and ``hkex_rap_parquet`` to a directory for the Parquet files. If a
Variable is not set, the task fails with Airflow's error VARIABLE_NOT_FOUND. If a report fails a check, the
task fails after it has written the other reports. The workers need pyarrow.
"""

from airflow.sdk import DAG, Asset, ObjectStoragePath, Variable, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_hkex_rap.notifications.alerts import alert

CUSTOMER = "CXYZ"
FOLDERS = ["DCASS", "DCASS_OTHERS", "HKCC_SEOCH_CCMS_GLOB"]
# The columns that a report must have, and its least number of rows, by report code: {"TP001": 1}.
COLUMNS: dict[str, list[str]] = {}
ROWS: dict[str, int] = {}

ASSETS = {folder: Asset(f"hkex-rap://{CUSTOMER}/{folder}") for folder in FOLDERS}
# If two tasks land reports within seconds, Airflow starts one run, whose triggering events may lack the
# second landing. So the task reads the latest events of each folder too. Writing a report again does no harm.
LATEST_EVENTS = 10


def new_reports(triggering, latest):
    """Return business date, folder and code of each report in the events, the oldest day first."""
    return sorted(
        {
            (day["business_date"], folder, report)
            for folder, asset in ASSETS.items()
            for event in (*triggering[asset], *latest[asset].ascending(False).limit(LATEST_EVENTS))
            for day in (event.extra or {}).get("days", ())
            for report in day["reports"]
        }
    )


@task(inlets=list(ASSETS.values()))
def validate(triggering_asset_events=None, inlet_events=None):
    """Check each new report and write it as Parquet; return the number of rows by Parquet file."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from airflow_provider_hkex_rap.lake.catalog import landed_reports

    lake, parquet = Variable.get("hkex_rap_lake"), ObjectStoragePath(Variable.get("hkex_rap_parquet"))
    rows, problems = {}, []
    for day, folder, report in new_reports(triggering_asset_events, inlet_events):
        files = landed_reports(lake, CUSTOMER, folder=folder, report=report, business_date=day)
        uris = [file.uri for file in files if file.uri.lower().endswith(".csv")]
        if not uris:
            continue
        try:
            table = pa.concat_tables(pa.csv.read_csv(ObjectStoragePath(uri).open("rb")) for uri in uris)
        except pa.ArrowInvalid as error:
            problems.append(f"{folder} {report} of {day} is not one table: {error}")
            continue
        if missing := set(COLUMNS.get(report, ())) - set(table.column_names):
            problems.append(f"{folder} {report} of {day} lacks the columns {sorted(missing)}")
        elif table.num_rows < ROWS.get(report, 0):
            problems.append(f"{folder} {report} of {day} has {table.num_rows} rows only")
        else:
            target = parquet / folder / f"report={report}" / f"business_date={day}" / "report.parquet"
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                pa.parquet.write_table(table, file)
            rows[str(target)] = table.num_rows
    if problems:
        raise AirflowFailException("; ".join(problems))
    return rows


with DAG(
    "hkex_rap_validate",
    schedule=ASSETS["DCASS"] | ASSETS["DCASS_OTHERS"] | ASSETS["HKCC_SEOCH_CCMS_GLOB"],
    max_active_runs=1,
    default_args={"on_failure_callback": alert},
    on_failure_callback=alert,
    tags=["hkex", "rap"],
    doc_md=__doc__,
):
    validate()
