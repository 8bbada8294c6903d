"""The other servers, each as its documentation writes it, each in an environment of its own (``requirements``).

A program here reads its settings from the environment: ``BENCH_MODEL``, ``BENCH_PORT``, ``BENCH_WORKERS``,
``BENCH_THREADS`` (of PyTorch, or of waitress where that has some), ``BENCH_BATCH`` (1: no batching) and
``BENCH_PREPARED`` (1: the model prepared as Deskside prepares it).
"""
