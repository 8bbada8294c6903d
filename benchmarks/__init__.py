"""What is measured, as code anyone can run (``make bench``). Ratios within one run count, not absolute times."""
