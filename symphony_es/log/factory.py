"""The log as an infrastructure of `eventsourcing`: for applications that read it through that library's interfaces.

`InfrastructureFactory.construct({"PERSISTENCE_MODULE": "symphony_es.log.factory:SQLiteLogFactory", "SQLITE_DBNAME": path})`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventsourcing.persistence import ApplicationRecorder, ProcessRecorder
from eventsourcing.sqlite import SQLiteFactory

from symphony_es.log.sqlite import SQLiteLogRecorder

__all__ = ["SQLiteLogFactory"]


class SQLiteLogFactory(SQLiteFactory):
    """Makes recorders over a log's file; the file is opened once."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._path = Path(self.env[self.SQLITE_DBNAME])
        self._recorder: SQLiteLogRecorder | None = None

    def _log_recorder(self) -> SQLiteLogRecorder:
        if self._recorder is None:
            self._recorder = SQLiteLogRecorder(self._path)
        return self._recorder

    def application_recorder(self) -> ApplicationRecorder:
        """Return the log's recorder."""
        return self._log_recorder()

    def process_recorder(self) -> ProcessRecorder:
        """Return the log's recorder."""
        return self._log_recorder()

    def close(self) -> None:
        """Close the log's file."""
        super().close()
        if self._recorder is not None:
            self._recorder.close()
