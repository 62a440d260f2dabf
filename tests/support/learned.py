"""Fixtures: a tiny training and its store. `trainings` imports torch, so it is imported only when they are used."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    from trainings import tiny_store

    return tiny_store(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="session")
def undisturbed(store, tmp_path_factory):
    from trainings import undisturbed

    return undisturbed(store, tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture(scope="session")
def start():
    from trainings import starter

    return starter()
