"""Every error that Martlet states: what was wrong, what was expected, what to do."""


class MartletError(Exception):
    """The family: a failure that Martlet foresaw and can explain. The command line exits with 1."""


class DataError(MartletError):
    """A log, a table or a dataset folder that cannot be read or does not fit its purpose."""


class SpecError(MartletError):
    """A hyper-parameter, a transform or a composition of them that makes no sense."""


class BundleError(MartletError):
    """A bundle folder that is missing, damaged or of another version."""


class QueryError(MartletError):
    """A question that no scorer can answer: a bad ``k``, a candidate out of range."""


class OutputError(MartletError):
    """A result that could not be written; nothing of it was left behind."""
