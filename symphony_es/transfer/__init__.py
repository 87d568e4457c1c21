"""Taking a log out and in: exports, imports, verification, backups."""

from typing import TYPE_CHECKING

from symphony_es.lazy import lazy_names

if TYPE_CHECKING:
    from symphony_es.transfer.backups import BackupReport, backup, restore
    from symphony_es.transfer.changes import ChangeFilter, export_changes
    from symphony_es.transfer.jsonl import ImportReport, export_jsonl, import_jsonl
    from symphony_es.transfer.tables import export_cloudevents, export_csv
    from symphony_es.transfer.text import event_as_json, plain_as_json
    from symphony_es.transfer.verification import Problem, VerifyReport, verify, verify_log
    from symphony_es.transfer.writing import ExportReport

__all__ = [
    "BackupReport",
    "ChangeFilter",
    "ExportReport",
    "ImportReport",
    "Problem",
    "VerifyReport",
    "backup",
    "event_as_json",
    "export_changes",
    "export_cloudevents",
    "export_csv",
    "export_jsonl",
    "import_jsonl",
    "plain_as_json",
    "restore",
    "verify",
    "verify_log",
]

_HOMES = {
    "BackupReport": "symphony_es.transfer.backups",
    "ChangeFilter": "symphony_es.transfer.changes",
    "ExportReport": "symphony_es.transfer.writing",
    "ImportReport": "symphony_es.transfer.jsonl",
    "Problem": "symphony_es.transfer.verification",
    "VerifyReport": "symphony_es.transfer.verification",
    "backup": "symphony_es.transfer.backups",
    "event_as_json": "symphony_es.transfer.text",
    "export_changes": "symphony_es.transfer.changes",
    "export_cloudevents": "symphony_es.transfer.tables",
    "export_csv": "symphony_es.transfer.tables",
    "export_jsonl": "symphony_es.transfer.jsonl",
    "import_jsonl": "symphony_es.transfer.jsonl",
    "plain_as_json": "symphony_es.transfer.text",
    "restore": "symphony_es.transfer.backups",
    "verify": "symphony_es.transfer.verification",
    "verify_log": "symphony_es.transfer.verification",
}

if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
    __getattr__ = lazy_names(__name__, _HOMES, globals())
