"""The rows, one module per subject; `ROWS` of benchmarks.rows.table has them in the order of the report."""
