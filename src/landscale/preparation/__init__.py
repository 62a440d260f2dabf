"""Data set → store: survey, extract in parallel, statistics. Calling it again after a kill resumes."""

from landscale.preparation.entry import prepare, prepare_survey, survey_dataset
from landscale.preparation.result import PreparationResult

__all__ = ["PreparationResult", "prepare", "prepare_survey", "survey_dataset"]
