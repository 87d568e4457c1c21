"""The test cases that `eventsourcing` has for its recorders and factories, whole, over this log in memory and in SQLite."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    InfrastructureFactoryTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)
from eventsourcing.utils import Environment

from symphony_es.adapters.eventsourcing import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogFactory,
    LogProcessRecorder,
    LogTrackingRecorder,
)


class _InMemory:
    """Makes a factory over a log in memory for each test."""

    def where(self) -> str:
        return ":memory:"

    def factory(self: Any) -> LogFactory:
        made = InfrastructureFactory.construct({"PERSISTENCE_MODULE": "symphony_es.adapters.eventsourcing", "STATE_DIR": self.where()})
        assert isinstance(made, LogFactory)
        self.addCleanup(made.close)
        return made


class _InSQLite(_InMemory):
    """Makes a factory over a log in a directory for each test."""

    def where(self: Any) -> str:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return str(Path(directory.name) / "log")


class TestAggregateRecorderInMemory(_InMemory, AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().aggregate_recorder()


class TestAggregateRecorder(_InSQLite, AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().aggregate_recorder()


class TestSnapshotRecorder(_InSQLite, AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().aggregate_recorder("snapshots")


class TestApplicationRecorderInMemory(_InMemory, ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> Any:
        return self.factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorder(_InSQLite, ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> Any:
        return self.factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorderInMemory(_InMemory, TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().tracking_recorder()


class TestTrackingRecorder(_InSQLite, TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().tracking_recorder()


class TestProcessRecorderInMemory(_InMemory, ProcessRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().process_recorder()


class TestProcessRecorder(_InSQLite, ProcessRecorderTestCase):
    def create_recorder(self) -> Any:
        return self.factory().process_recorder()


class TestNonInterleavingNotificationIDsInMemory(_InMemory, NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.factory().application_recorder()


class TestNonInterleavingNotificationIDs(_InSQLite, NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return self.factory().application_recorder()


class OwnTrackingRecorder(LogTrackingRecorder):
    """A subclass, as the read model of an application is one."""


class _Factory(InfrastructureFactoryTestCase[LogFactory]):
    def expected_factory_class(self) -> type[LogFactory]:
        return LogFactory

    def expected_aggregate_recorder_class(self) -> type[LogAggregateRecorder]:
        return LogAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LogTrackingRecorder]:
        return LogTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LogTrackingRecorder]:
        return OwnTrackingRecorder

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder


class TestFactoryInMemory(_InMemory, _Factory):
    def setUp(self) -> None:
        self.env = Environment("Shop", {"PERSISTENCE_MODULE": LogFactory.__module__, "STATE_DIR": self.where()})
        super().setUp()


class TestFactory(_InSQLite, _Factory):
    def setUp(self) -> None:
        self.env = Environment("Shop", {"PERSISTENCE_MODULE": LogFactory.__module__, "SHOP_STATE_DIR": self.where()})
        super().setUp()


# The abstract cases are not tests of their own.
del AggregateRecorderTestCase, ApplicationRecorderTestCase, InfrastructureFactoryTestCase, NonInterleavingNotificationIDsBaseCase
del ProcessRecorderTestCase, TrackingRecorderTestCase, _Factory
