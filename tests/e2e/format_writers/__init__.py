"""Cases of the formats suite, a module for each family of formats (see :mod:`tests.e2e.format_case`)."""
